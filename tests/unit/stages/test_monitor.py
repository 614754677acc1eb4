"""Days of what is served, judged run by run: learned once, judged once, remembered."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from elcrec import cli
from elcrec.artifacts import read_json
from elcrec.config import MonitorConfig
from elcrec.errors import UserError
from elcrec.serving.bundle import Manifest
from elcrec.stages.monitor import monitor
from tests.support.engines import ENGINE
from tests.support.shown_days import Drift, World

START = datetime(2026, 3, 2, tzinfo=UTC)
DRIFT_DAY = 10
PARAMS = Path(__file__).parents[3] / "params.yaml"
TABLES = [*(world := World(seed=2, users=1200)).days(DRIFT_DAY), *world.days(5, Drift(clicks=0.6, moved=0.2))]
CONFIG: dict[str, Any] = {"reference_days": 6, "page": False}


def written(folder: Path, tables: Sequence[pa.Table]) -> Path:
    """What `elcrec exposures` writes, of these days."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"schema_version": 1, "config": {"window": 86_400.0, "page": True}, "counts": {}}
    (folder / "exposures.json").write_text(json.dumps(document), encoding="utf-8")
    pq.write_table(pa.concat_tables(tables), folder / "attributed.parquet")
    return folder


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("monitor") / "attributed", TABLES)


def run(attributed: Path, out: Path, day: float, *, bundle: Path | None = None, **config: Any) -> dict[str, Any]:
    """The document after a run so many days after the first one began."""
    now = START + timedelta(days=day)
    monitor(MonitorConfig(**CONFIG | config), attributed, out, engine=ENGINE, now=now, bundle=bundle)
    return read_json(out / "monitor.json")


def judgements(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(one["date"][-2:], one["verdict"]) for one in document["bundles"][0]["judgements"]]


def days_of(document: Mapping[str, Any]) -> list[tuple[str, bool]]:
    return [(day["date"][-2:], day["settled"]) for day in document["bundles"][0]["days"]]


def test_it_learns_from_the_first_whole_settled_days_and_then_judges(attributed: Path, tmp_path: Path) -> None:
    learning = run(attributed, tmp_path / "out", 5.1)
    assert (learning["verdict"], learning["retrain"]) == ("learning", False)
    assert learning["reasons"] == ["3 of the 6 reference days are known."]
    # The first day is left out: the bundle may have begun to serve at noon.
    assert days_of(learning) == [("03", True), ("04", True), ("05", True), ("06", False)]
    found = run(attributed, tmp_path / "out", 10.1)
    assert [day["date"][-2:] for day in found["bundles"][0]["reference"]["days"]] == [
        "03",
        "04",
        "05",
        "06",
        "07",
        "08",
    ]
    assert (found["verdict"], judgements(found)) == ("fine", [("09", "fine"), ("10", "fine"), ("11", "fine")])


def test_a_drift_is_found_and_retraining_asked_for_once_until_the_cool_down_is_over(
    attributed: Path, tmp_path: Path
) -> None:
    verdicts = [run(attributed, tmp_path / "out", day) for day in (11.1, 12.1, 13.1, 14.1)]
    assert verdicts[0]["verdict"] == "fine"
    assert verdicts[-1]["verdict"] == "retrain"
    assert any(reason.startswith("Click-through rate fell") for reason in verdicts[-1]["reasons"])
    assert sum(one["retrain"] for one in verdicts) == 1
    asked = verdicts[-1]["requests"][0]
    again = run(attributed, tmp_path / "out", 15.1)
    assert (again["verdict"], again["retrain"], again["requests"]) == ("retrain", False, [asked])
    later = run(attributed, tmp_path / "out", 22.1)
    assert (later["retrain"], len(later["requests"])) == (True, 2)


def test_the_same_day_twice_is_one_day_and_every_run_at_once_is_as_day_by_day(attributed: Path, tmp_path: Path) -> None:
    for day in (3, 6, 8, 9, 10, 12, 13):
        found = run(attributed, tmp_path / "daily", day + 0.1)
    assert run(attributed, tmp_path / "daily", 13.1)["bundles"] == found["bundles"]
    assert run(attributed, tmp_path / "once", 13.1)["bundles"] == found["bundles"]


def test_rows_of_settled_days_may_go(attributed: Path, tmp_path: Path) -> None:
    run(attributed, tmp_path / "out", 11.1)
    rest = written(tmp_path / "rest", TABLES[9:])
    expected = run(attributed, tmp_path / "whole", 14.1)
    assert run(rest, tmp_path / "out", 14.1)["bundles"] == expected["bundles"]


def without_events(tables: Sequence[pa.Table], place: int) -> list[pa.Table]:
    """The tables, of one of which no event has come in."""
    table = tables[place]
    zeros = pc.multiply(table["events"], 0).combine_chunks()
    silent = table.set_column(table.schema.get_field_index("events"), table.schema.field("events"), zeros)
    return [*tables[:place], silent, *tables[place + 1 :]]


def test_late_events_count_until_a_day_is_settled_and_not_afterwards(tmp_path: Path) -> None:
    early = written(tmp_path / "early", without_events(TABLES[:9], 8))
    late = written(tmp_path / "late", TABLES[:9])
    first = run(early, tmp_path / "out", 9.1)
    assert first["bundles"][0]["days"][-1]["measured"]["ratios"]["ctr"]["value"] == 0
    assert first["bundles"][0]["judgements"][-1]["bad"] == []
    then = run(late, tmp_path / "out", 10.1)
    assert then["bundles"][0]["days"][-1]["measured"]["ratios"]["ctr"]["value"] > 0.05
    assert run(early, tmp_path / "out", 10.2)["bundles"] == then["bundles"]


def test_an_old_bundle_is_stale_and_one_that_nobody_saw_is_still_learning(attributed: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    manifest = Manifest(name="elcrec", feature_service="s", sequences_md5="m", split={}, files={})
    document = {**manifest.document(), "digest": manifest.digest, "created": "2026-02-20T12:00:00+00:00"}
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    (bundle / "intents.json").write_text('{"intents": [{"intent": 5, "share": 0.1}]}', encoding="utf-8")
    found = run(attributed, tmp_path / "out", 13.1, bundle=bundle)
    assert (found["verdict"], found["bundle"]) == ("learning", manifest.digest)
    assert found["reasons"] == ["The bundle that serves has not been shown to any user yet."]
    stale = run(attributed, tmp_path / "out", 13.1, bundle=bundle, stale_days=22)
    assert (stale["verdict"], stale["retrain"]) == ("retrain", True)
    assert stale["reasons"][-1] == "The bundle is 23 days old; it is stale from 22 days."
    warned = run(attributed, tmp_path / "other", 13.1, bundle=bundle, stale_days=22, retrain_on=("ctr",))
    assert (warned["verdict"], warned["retrain"]) == ("warn", False)
    assert run(attributed, tmp_path / "other", 13.1, bundle=bundle, stale_days=None)["verdict"] == "learning"


def test_bundles_are_judged_separately(tmp_path: Path) -> None:
    other = World(seed=3, users=1200, digest="f" * 64)
    other.day = 8
    both = written(tmp_path / "attributed", [*TABLES[:8], *other.days(4)])
    found = run(both, tmp_path / "out", 12.1)
    first, second = found["bundles"]
    assert (first["reference"] is not None, second["reference"]) == (True, None)
    assert (found["bundle"], found["verdict"]) == ("f" * 64, "learning")


def test_undisturbed_worlds_stay_fine_and_drifting_ones_do_not(tmp_path: Path) -> None:
    for seed in range(2):
        world = World(seed=100 + seed, users=900)
        quiet, drifted = list(world.days(12)), list(world.days(3, Drift(clicks=0.5, moved=0.25)))
        calm = run(written(tmp_path / f"quiet{seed}", quiet), tmp_path / f"q{seed}", 13.1)
        assert {verdict for _, verdict in judgements(calm)} == {"fine"}
        found = run(written(tmp_path / f"moved{seed}", [*quiet, *drifted]), tmp_path / f"q{seed}", 16.1)
        assert found["verdict"] == "retrain"


def test_what_is_missing_or_was_never_a_monitor_is_one_clear_error(attributed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exposures\.json: no such file"):
        run(tmp_path, tmp_path / "out", 9)
    (tmp_path / "exposures.json").write_text('{"schema_version": 1}', encoding="utf-8")
    pq.write_table(TABLES[0].drop_columns(["score"]), tmp_path / "attributed.parquet")
    with pytest.raises(UserError, match="not what `elcrec exposures` writes"):
        run(tmp_path, tmp_path / "out", 9)
    (tmp_path / "exposures.json").write_text('{"schema_version": 1, "config": {"window": 1}}', encoding="utf-8")
    with pytest.raises(UserError, match="no column score"):
        run(tmp_path, tmp_path / "out", 9)
    (tmp_path / "out").mkdir()
    for text, says in (('{"bundles": 3}', "not what a monitor has written"), ('{"schema_version": 9}', "version 9")):
        (tmp_path / "out" / "monitor.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=says):
            run(attributed, tmp_path / "out", 9)


def test_the_command_judges_and_ends_with_the_status_that_is_asked_for(
    attributed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--attributed", str(attributed), "--out", str(tmp_path / "out"), "--params", str(PARAMS)]
    settings = ("reference_days=6", "page=false", "retrain_status=3")
    options += [part for setting in settings for part in ("--set", f"monitor.{setting}")]
    assert cli.main(["monitor", *options]) == 3
    assert "verdict                      retrain" in capsys.readouterr().out
    assert cli.main(["monitor", *options]) == 0
    earlier = ["--earlier", str(tmp_path / "nothing")]
    assert cli.main(["monitor", *options, *earlier]) == 3
