"""Training data at any moment: exactly the events until then."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.artifacts import md5_of, write_json
from elcrec.config import SequencesConfig, ValidateConfig
from elcrec.serving.publishing import log_tables
from elcrec.stages.sequences import build_sequences
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE
from tests.support.feature_tables import tables
from tests.support.servers import RedisServer

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"
START = np.datetime64("2026-01-01", "us")
USERS, EVENTS, WINDOW, MOMENTS = 60, 2_400, 50, 2_000
Log = list[tuple[str, str, int]]


@pytest.fixture(scope="module", params=["u{}", "{}"], ids=["string ids", "integer ids"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Log]:
    """Sequences of a log out of order, with many equal times; some users have more events than a window."""
    folder, chance = tmp_path_factory.mktemp("log"), np.random.default_rng(4)
    users = np.minimum(chance.geometric(0.06, EVENTS), USERS)
    seconds = chance.integers(0, 2_000, EVENTS) * 30
    rows = list(zip(map(request.param.format, users), (f"i{n}" for n in range(EVENTS)), seconds.tolist(), strict=True))
    raw = folder / "raw"
    raw.mkdir()
    lines = [f"{user},{item},{START + np.timedelta64(second, 's')}Z" for user, item, second in rows]
    (raw / "data.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    source = {"dataset": "file", "format": "csv", "file": "data.csv", "md5": md5_of(raw / "data.csv")}
    write_json(raw / "source.json", source)
    validate(ValidateConfig(), raw, folder / "validated", engine=ENGINE)
    build_sequences(SequencesConfig(history=WINDOW), folder / "validated", folder / "sequences", engine=ENGINE)
    return folder / "sequences", rows


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeastStore:
    servers = Servers()
    if request.param == "redis":
        running: RedisServer = request.getfixturevalue("server")
        running.client.flushall()
        servers = Servers(redis=f"{running.address},socket_timeout=10")
    return FeastStore(tmp_path / "store", REPOSITORY, servers)


def test_a_history_at_any_moment_is_what_had_happened_until_then(store: FeastStore, log: tuple[Path, Log]) -> None:
    sequences, rows = log
    store.publish(log_tables(sequences), service=SERVICE)
    chance = np.random.default_rng(5)
    names = sorted({user for user, _, _ in rows})
    asked = pd.DataFrame(
        {
            "user_id": chance.choice(names, MOMENTS),
            "event_timestamp": pd.to_datetime(START + chance.integers(0, 61_000, MOMENTS).astype("m8[s]"), utc=True),
            "row": np.arange(MOMENTS),
        }
    )

    if names[0].isdigit():
        asked["user_id"] = asked["user_id"].astype("int64")
    found = store.training_data(asked, ["user_history:item_ids", "user_history:event_times"]).sort_values("row")

    assert found["user_id"].dtype == asked["user_id"].dtype
    exact = sum(
        listed(row.item_ids) == [item for item, _ in expected] and listed(row.event_times) == [t for _, t in expected]
        for row in found.itertuples()
        for expected in [history(rows, str(row.user_id), row.event_timestamp)]
    )
    assert exact == MOMENTS


def history(rows: Log, user: str, moment: pd.Timestamp) -> list[tuple[str, int]]:
    """What a user had done by then, from the raw log; equal times stand in the order of the log."""
    first = int(START.astype(np.int64))
    own = sorted(((first + second * 1_000_000, item) for who, item, second in rows if who == user), key=lambda e: e[0])
    return [(item, time) for time, item in own if time <= moment.value // 1000][-WINDOW:]


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | np.ndarray) else []


def test_outputs_and_statistics_are_those_of_their_day(tmp_path: Path) -> None:
    store, before = FeastStore(tmp_path / "store", REPOSITORY), datetime.now(UTC)
    store.publish(tables({"ann": ["i1", "i2"]}, bundle="b1"), service=SERVICE)
    between = datetime.now(UTC)
    store.publish(tables({"ann": ["i1"]}, bundle="b2", items=["i2", "i3"]), service=SERVICE)
    moments = [before, between, datetime.now(UTC), between + timedelta(days=30)]

    outputs = store.training_data(asking("user_id", "ann", moments), ["user_model_output:bundle"])["bundle"]
    totals = store.training_data(asking("item_id", "i2", moments), ["item_statistics:total"])["total"]

    assert outputs.fillna("none").tolist() == ["none", "b1", "b2", "none"]
    assert totals.fillna(0).tolist() == [0, 5, 1, 0]
    assert store._published_items() == {"i2", "i3"}


def asking(key: str, value: str, moments: list[datetime]) -> pd.DataFrame:
    return pd.DataFrame({key: value, "event_timestamp": pd.to_datetime(moments, utc=True)})
