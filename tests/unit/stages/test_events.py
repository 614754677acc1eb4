import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from elcrec import cli
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.store import open_store
from tests.support.feature_tables import tables

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "store"
    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1", "i2"]}), service=SERVICE)
    return folder


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELCREC_FEATURES", str(REPOSITORY))
    for name in ("REDIS", "FEAST_REGISTRY"):
        monkeypatch.delenv(name, raising=False)


def items(store: Path, user: str) -> list[str]:
    (found,) = open_store(store).features.users([user], service=SERVICE)
    return found.item_ids if found else []


def test_a_file_of_events_is_served_and_pushed_again_changes_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.csv"
    file.write_text("user_id,item_id,timestamp\nbob,x2,2026-01-02\nbob,x1,2026-01-01\nbob,x1,2026-01-01\n")

    assert cli.main(["events", "--store", str(store), str(file)]) == 0
    first = capsys.readouterr().out.split()
    assert cli.main(["events", "--store", str(store), str(file)]) == 0
    second = capsys.readouterr().out.split()

    assert items(store, "bob") == ["x1", "x2"]
    assert first == ["events", "3", "users", "1", "accepted", "2", "duplicates", "1", "late", "0"]
    assert second == ["events", "3", "users", "1", "accepted", "0", "duplicates", "3", "late", "0"]


def test_events_come_from_standard_input_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).isoformat()
    line = f'{{"user_id": "cid", "item_id": "x", "timestamp": "{now}"}}\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))

    assert cli.main(["events", "--store", str(store), "-"]) == 0

    assert items(store, "cid") == ["x"]


def test_a_bad_line_keeps_the_good_ones_out(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "events.csv"
    file.write_text("user_id,item_id,timestamp\neve,x,2026-01-02\neve,y,later\n")

    assert cli.main(["events", "--store", str(store), str(file)]) == 2

    assert "line 3: timestamp 'later' is neither" in capsys.readouterr().err
    assert items(store, "eve") == []


def test_a_missing_file_is_one_clear_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["events", "--store", str(store), "nowhere.csv"]) == 2

    assert "nowhere.csv: not readable" in capsys.readouterr().err


def test_what_came_in_is_exported_as_a_log_and_an_option_of_another_verb_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "events.csv", tmp_path / "log.parquet"
    file.write_text("user_id,item_id,timestamp,event_id\ndora,x2,2026-01-02,a\ndora,x1,2026-01-01,b\n")
    assert cli.main(["events", "--store", str(store), str(file)]) == 0

    assert cli.main(["events", "export", "--store", str(store), "--out", str(out)]) == 0

    rows = [row for row in pq.read_table(out).to_pylist() if row["user_id"] == "dora"]
    assert sorted((row["item_id"], row["event_id"]) for row in rows) == [("x1", "b"), ("x2", "a")]
    assert cli.main(["events", str(file), "--store", str(store), "--out", str(out)]) == 2
    assert "--out does not apply" in capsys.readouterr().err
    assert cli.main(["events", "trim", "--store", str(store), "--before", "soon"]) == 2
    assert "'soon' is not a time" in capsys.readouterr().err
