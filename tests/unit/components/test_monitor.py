"""The steps exposures and monitor: the stages' files and pages, and the state in the store."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from components._artifacts import publish_page
from components._results import FACTS
from components._sections import write_sections
from components.exposures import exposures
from components.monitor import monitor
from elcrec.adapters import store as store_module
from elcrec.artifacts import read_json
from elcrec.config import parse_config
from elcrec.data.user_keys import user_key
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA
from elcrec.serving.ports import LOG_SCHEMA
from tests.support.shown_days import Drift, World

CONFIG = parse_config({"monitor": {"reference_days": 4, "cool_down_days": 30}, "engine": {"memory_mb": 256}})
SECTIONS = write_sections(CONFIG)


class _Store:
    """A store without a model, with one event."""

    user_salt = "salt"
    registry = features = property(lambda self: self)

    def champion(self, name: str) -> None: ...

    @property
    def event_log(self) -> "_Store":
        return self

    def batches(self) -> Iterator[pa.RecordBatch]:
        moment = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
        row = {"logged": 1, "user_id": "u1", "item_id": "i2", "timestamp": moment, "event_id": "e"}
        yield from pa.Table.from_pylist([row], LOG_SCHEMA).to_batches()


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "open_store", lambda _: _Store())


def ports(out: Path, **kinds: type[dsl.Artifact]) -> dict[str, Any]:
    out.mkdir()
    return {name: kind(name=name, uri=str(out / name)) for name, kind in kinds.items()}


def judge(attributed: Path, store: Path, out: Path) -> tuple[Any, dict[str, Any]]:
    given = ports(out, judged=dsl.Artifact, page=dsl.HTML, metrics=dsl.Metrics)
    settings = {"config": SECTIONS["monitor"], "engine": SECTIONS["engine"], "push": SECTIONS["push"]}
    table = dsl.Dataset(name="attributed", uri=str(attributed))
    return monitor.python_func(**settings, store=str(store), attributed=table, **given), given


def test_a_request_to_retrain_is_made_once_and_kept_in_the_store(tmp_path: Path) -> None:
    world, attributed = World(seed=6, users=900), tmp_path / "attributed"
    attributed.mkdir()
    tables = [*world.days(7), *world.days(4, Drift(clicks=0.3, moved=0.4))]
    pq.write_table(pa.concat_tables(tables), attributed / "attributed.parquet")
    (attributed / "exposures.json").write_text(json.dumps({"schema_version": 1, "config": {"window": 60.0}}))
    first, given = judge(attributed, tmp_path / "store", tmp_path / "first")
    assert first is True
    metadata = given["judged"].metadata
    assert {name: metadata[name] for name in FACTS if name in metadata and name != "reason"} == {
        "verdict": "retrain",
        "retrain": "yes",
    }
    assert "Click-through rate" in metadata["reason"]
    assert "Monitor: retrain" in Path(given["page"].path).read_text(encoding="utf-8")
    second, given = judge(attributed, tmp_path / "store", tmp_path / "second")
    assert (second, given["judged"].metadata["retrain"]) == (False, "no")
    kept = read_json(tmp_path / "store" / "monitor" / "monitor.json")
    assert kept == read_json(Path(given["judged"].path) / "monitor.json")


def test_exposures_become_a_table_and_a_page(tmp_path: Path) -> None:
    row = {"answer_id": "a", "time": datetime(2026, 3, 1, 12, tzinfo=UTC), "user_key": user_key("u1", "salt")}
    row |= {"item_ids": ["i1", "i2"], "scores": [2.0, 1.0], "policy": "model", "known": 3, "model": "elcrec"}
    (tmp_path / "shown").mkdir()
    pq.write_table(pa.Table.from_pylist([row], EXPOSURE_SCHEMA), tmp_path / "shown" / "a.parquet")
    given = ports(tmp_path / "out", attributed=dsl.Dataset, page=dsl.HTML, metrics=dsl.Metrics)
    settings = {"config": SECTIONS["exposures"], "folder": str(tmp_path / "shown")}
    settings |= {name: SECTIONS[name] for name in ("sequences", "engine")}
    exposures.python_func(**settings, store=str(tmp_path / "store"), **given)
    rows = pq.read_table(Path(given["attributed"].path) / "attributed.parquet").to_pylist()
    assert [(each["item_id"], each["events"]) for each in rows] == [("i1", 0), ("i2", 1)]
    assert "What followed from what was shown" in Path(given["page"].path).read_text(encoding="utf-8")
    assert given["metrics"].metadata["by_window"] == 1


def test_a_disabled_page_is_replaced_by_a_note(tmp_path: Path) -> None:
    page = dsl.HTML(name="page", uri=str(tmp_path / "page"))
    publish_page(tmp_path / "missing.html", page)
    assert "The page is disabled" in Path(page.path).read_text(encoding="utf-8")
