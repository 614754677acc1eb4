"""Publication by Feast's Spark engine, with Spark on this machine."""

import shutil
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from elcrec.adapters.feast_spark import _failed
from elcrec.adapters.feast_store import FeastStore, _goes_by_spark
from elcrec.adapters.idle_users import IdleUsers
from elcrec.adapters.offline_files import HISTORY, ITEMS, OUTPUT
from elcrec.serving.bundle import BundleSource
from elcrec.serving.ports import Event
from elcrec.serving.publishing import bundle_tables
from tests.support.push_inputs import Inputs, make_inputs

spark_sql = pytest.importorskip("pyspark.sql", reason="the extra spark is not installed: make spark")
engines = pytest.importorskip("feast.infra.compute_engines.spark.compute")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
ENGINE = """batch_engine:
  type: spark.engine
  spark_conf: {spark.master: "local[2]", spark.ui.enabled: "false", spark.sql.shuffle.partitions: "2"}
"""
VIEWS = ("user_model_output", "item_statistics")


@dataclass(frozen=True)
class Published:
    """Two stores of the same two publications, one by Spark; and the views that Spark wrote."""

    plain: Path
    spark: Path
    inputs: Inputs
    features: Path
    written: list[str]


def publish(store: FeastStore, inputs: Inputs, digest: str) -> None:
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    store.publish(bundle_tables(source, digest), service="elcrec_v1")


def rows(store: Path, view: str) -> list[Any]:
    with sqlite3.connect(store / "feast" / "online.db") as database:
        query = f"SELECT entity_key, feature_name, value FROM elcrec_{view} ORDER BY entity_key, feature_name"
        return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    root = tmp_path_factory.mktemp("spark")
    inputs = make_inputs(root / "inputs", time="real")
    features = shutil.copytree(ROOT / "features", root / "features", ignore=shutil.ignore_patterns("__pycache__"))
    with (features / "feature_store.yaml").open("a") as file:
        file.write(ENGINE)
    written: list[str] = []
    write = engines.SparkComputeEngine._materialize_one

    def noted(engine: Any, registry: Any, task: Any, **options: Any) -> Any:
        written.append(task.feature_view.name)
        return write(engine, registry, task, **options)

    event = Event(user_id="user-1", item_id="item-3", timestamp=datetime.now(UTC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.SparkComputeEngine, "_materialize_one", noted)
        for name, repository in (("plain", ROOT / "features"), ("spark", features)):
            store = FeastStore(root / name, ROOT / "features")
            publish(store, inputs, "first")
            store.push_events([event])
            publish(FeastStore(root / name, repository), inputs, "second")
    return Published(root / "plain", root / "spark", inputs, features, written)


def test_spark_publishes_the_same_model_outputs_and_items_and_nothing_else(published: Published) -> None:
    assert published.written == list(VIEWS)
    for view in VIEWS:
        assert rows(published.spark, view) == rows(published.plain, view) != []


def test_an_event_after_the_log_stays_in_the_history(published: Published) -> None:
    found = FeastStore(published.spark, published.features).users(["user-1"], service="elcrec_v1")[0]

    assert found is not None
    assert found.item_ids[-1] == "item-3"
    assert found.event_times[-1].year > 2000
    assert found.bundle == "second"


def test_no_session_of_spark_is_left(published: Published) -> None:
    assert spark_sql.SparkSession.getActiveSession() is None


def test_spark_never_publishes_histories_or_excluded_users() -> None:
    feast = cast("Any", SimpleNamespace(config=SimpleNamespace(batch_engine_config={"type": "spark.engine"})))
    nobody, somebody = pa.chunked_array([], pa.string()), pa.chunked_array([["user-1"]])
    for expired, views in ((nobody, [OUTPUT, ITEMS]), (somebody, [ITEMS])):
        idle = IdleUsers(days=1, since=1, in_log=somebody, expired=expired)
        assert [view for view in (HISTORY, OUTPUT, ITEMS) if _goes_by_spark(feast, view, idle)] == views


def test_a_failure_of_a_worker_is_one_line() -> None:
    error = RuntimeError("An exception was thrown\nTraceback (most recent call last):\n  File x\nOSError: no store\n")

    said = str(_failed(["item_statistics"], error))

    assert said.startswith("Feast's Spark engine did not publish item_statistics (OSError: no store)")
    assert "\n" not in said
