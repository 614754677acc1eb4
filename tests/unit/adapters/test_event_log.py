"""The event log on both online stores: all acknowledged events, each once, and their replay."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.adapters.event_export import export_events
from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.errors import UserError
from elcrec.serving.ports import Event, FeatureTables, StoreUnavailable
from elcrec.stages.events import replay_events
from tests.support.feature_tables import TIME, tables
from tests.support.published import REPOSITORY, SERVICE, Published
from tests.support.servers import RedisServer

START = datetime(2026, 3, 1, tzinfo=UTC)
ITEMS = [f"i{number}" for number in range(100)]
PUBLISHED = tables({"ann": ["i1", "i2"], "bob": ["i2"]}, items=ITEMS)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published.push(tmp_path_factory.mktemp("store"), PUBLISHED)


@pytest.fixture(scope="module")
def published_to_redis(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("redis") / "store"
    return Published.push(folder, PUBLISHED, redis=server, servers=servers(server))


@pytest.fixture(params=["published", "published_to_redis"], ids=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeastStore:
    published: Published = request.getfixturevalue(request.param)
    return published.copied(tmp_path / "store")


def servers(running: RedisServer) -> Servers:
    return Servers(redis=f"{running.address},socket_timeout=10")


def event(user: str, item: str, seconds: float, event_id: str | None = None) -> Event:
    return Event(user_id=user, item_id=item, timestamp=START + timedelta(seconds=seconds), event_id=event_id)


def logged(store: FeastStore) -> list[tuple[str, str, str]]:
    rows = [row for batch in store.event_log.batches() for row in batch.to_pylist()]
    return sorted((row["user_id"], row["item_id"], row["event_id"]) for row in rows)


def export(store: FeastStore, path: Path, **options: Any) -> list[tuple[str, str]]:
    export_events(store.event_log, path, **options)
    table = pq.read_table(path)
    assert table.schema.names == ["user_id", "item_id", "timestamp", "event_id"]
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def log_of_whole_seconds(*, ids: list[str | None] | None) -> FeatureTables:
    """A later log: ann's two events and a third, a click whose time was cut to seconds."""
    base = tables({"ann": ["i1", "i2", "i3"], "bob": ["i2"]}, items=ITEMS)
    third = (START + timedelta(seconds=10)).timestamp() * 1e6
    times = base.histories["event_times"].cast(pa.list_(pa.int64())).to_pylist()
    times[0][2] = int(third)
    columns = base.histories.set_column(2, "event_times", pa.array(times, pa.list_(TIME)))
    if ids is not None:
        columns = columns.append_column("event_ids", pa.array([ids, [None]], pa.list_(pa.string())))
    return replace(base, histories=columns)


def items(store: FeastStore, user: str) -> list[str]:
    (found,) = store.histories([user], service=SERVICE)
    return found.item_ids if found else []


def test_accepted_events_are_in_the_log_and_refused_users_are_not(store: FeastStore) -> None:
    store.push_events([event("ann", "i3", 3, "a"), event("ann", "i4", 4)])
    outcome = store.push_events([event("stranger", "i5", 5)], new_users=0)

    assert outcome.refused == 1
    assert logged(store) == [("ann", "i3", "a"), ("ann", "i4", f"{int((START.timestamp() + 4) * 1e6)}:i4")]


def test_an_event_too_old_for_a_history_is_in_the_log_all_the_same(store: FeastStore) -> None:
    store.push_events([event("ann", f"i{number}", number) for number in range(60)])
    outcome = store.push_events([event("ann", "i99", -1, "old")])

    assert outcome.late == 1
    assert ("ann", "i99", "old") in logged(store)


def test_an_event_that_was_not_acknowledged_reaches_the_log_when_it_is_sent_again(
    store: FeastStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, events: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.event_log), "append", fail)
        with pytest.raises(StoreUnavailable):
            store.push_events([event("ann", "i3", 3, "a")])
    assert logged(store) == []

    outcome = store.push_events([event("ann", "i3", 3, "a")])

    assert outcome.duplicates == 1
    assert logged(store) == [("ann", "i3", "a")]


def test_an_export_has_each_event_once_and_is_the_same_bytes_again(store: FeastStore, tmp_path: Path) -> None:
    store.push_events([event("ann", "i3", 3, "a"), event("bob", "i9", 1)])
    store.push_events([event("ann", "i3", 3, "a"), event("ann", "i5", 4, "a"), event("ann", "i3", 3)])

    assert sorted(export(store, tmp_path / "log.parquet")) == [("ann", "i3"), ("bob", "i9")]
    first = (tmp_path / "log.parquet").read_bytes()
    export(store, tmp_path / "log.parquet")
    assert (tmp_path / "log.parquet").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["log.parquet"]


@pytest.mark.parametrize("cut", ["to seconds", "up to seconds", "exact, under the id"])
def test_an_export_after_an_earlier_log_leaves_out_what_that_holds(store: FeastStore, tmp_path: Path, cut: str) -> None:
    moments = {"to seconds": 3, "up to seconds": 4, "exact, under the id": 3600}
    row = {"user_id": "ann", "item_id": "i3", "timestamp": START + timedelta(seconds=moments[cut])}
    rows = [row | {"event_id": "a" if cut.startswith("exact") else None}]
    rows += [{"user_id": "bob", "item_id": "i2", "timestamp": START, "event_id": None}]
    schema = pa.schema(
        [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", TIME), ("event_id", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "base.parquet")
    store.push_events([event("ann", "i3", 3.25, "a"), event("ann", "i3", 3700.5, "b")])

    found = export(store, tmp_path / "log.parquet", base=tmp_path / "base.parquet")

    assert found == [("ann", "i3"), ("bob", "i2"), ("ann", "i3")]


def test_an_interrupted_export_leaves_the_file_unchanged(
    store: FeastStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push_events([event("ann", "i3", 3)])
    out = tmp_path / "log.parquet"
    export(store, out)
    before = out.read_bytes()
    monkeypatch.setattr(pq.ParquetWriter, "write_batch", lambda *_, **__: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        export(store, out)

    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_an_empty_log_and_a_base_of_other_columns_are_one_clear_line(store: FeastStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the event log is empty"):
        export(store, tmp_path / "log.parquet")
    pq.write_table(pa.table({"user": ["ann"]}), tmp_path / "base.parquet")
    with pytest.raises(UserError, match="expected user_id and item_id as text"):
        export(store, tmp_path / "log.parquet", base=tmp_path / "base.parquet")
    assert not (tmp_path / "log.parquet").exists()


@pytest.mark.parametrize("ids", [None, [None, None, "a"]], ids=["a log without ids", "a log with ids"])
def test_a_live_event_counts_once_after_the_next_push_even_if_it_is_sent_again(
    store: FeastStore, ids: list[str | None] | None
) -> None:
    click = event("ann", "i3", 10.25, "a")
    store.push_events([click])

    store.publish(log_of_whole_seconds(ids=ids), service=SERVICE)
    assert items(store, "ann") == ["i1", "i2", "i3"]

    assert store.push_events([click]).duplicates == 1
    assert items(store, "ann") == ["i1", "i2", "i3"]


def test_an_event_id_counts_once_even_if_its_times_differ(store: FeastStore) -> None:
    store.push_events([event("ann", "i3", 7000.5, "a")])

    store.publish(log_of_whole_seconds(ids=[None, None, "a"]), service=SERVICE)

    assert items(store, "ann") == ["i1", "i2", "i3"]


def test_an_event_of_a_log_is_removed_when_the_next_log_lacks_it(store: FeastStore) -> None:
    store.publish(log_of_whole_seconds(ids=[None, None, "a"]), service=SERVICE)
    store.publish(PUBLISHED, service=SERVICE)

    assert items(store, "ann") == ["i1", "i2"]


def test_a_store_that_was_lost_gets_its_live_events_back_from_the_log(store: FeastStore, server: RedisServer) -> None:
    store.push_events([event("ann", "i3", 3), event("cid", "i7", 4, "b")])
    lost = Path(store._folder) / "online.db"
    if lost.exists():
        for path in lost.parent.glob("online.db*"):
            path.unlink()
    else:
        for key in server.client.scan_iter("*"):
            if not key.startswith(b"elcrec_events:"):
                server.client.delete(key)
    store.publish(PUBLISHED, service=SERVICE)
    assert items(store, "ann") == ["i1", "i2"]

    counts = replay_events(store)

    assert counts == {"events": 2, "accepted": 2, "duplicates": 0, "late": 0}
    assert items(store, "ann") == ["i1", "i2", "i3"]
    assert items(store, "cid") == ["i7"]
    assert replay_events(store)["duplicates"] == 2
    assert len(logged(store)) == 2


def test_a_log_that_is_trimmed_keeps_what_came_in_later(store: FeastStore) -> None:
    store.push_events([event("ann", "i3", 3), event("bob", "i4", 4)])
    now = datetime.now(UTC)

    assert store.event_log.trim(now - timedelta(hours=1)) == 0
    assert store.event_log.trim(now + timedelta(hours=1)) == 2
    assert logged(store) == []


def test_a_writer_that_is_killed_loses_no_event_that_it_has_acknowledged(published: Published, tmp_path: Path) -> None:
    folder = shutil.copytree(published.folder, tmp_path / "store")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a process of its own, without the seconds that Feast's import takes
        write_events(FeastStore(folder, REPOSITORY), writer)
    os.close(writer)
    acknowledged = []
    with os.fdopen(reader) as lines:
        for line in lines:
            acknowledged.append(line.strip())
            if len(acknowledged) == 100:
                os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    kept = {event_id for _, _, event_id in logged(FeastStore(folder, REPOSITORY))}

    assert len(acknowledged) >= 100
    assert set(acknowledged) <= kept


def write_events(store: FeastStore, out: int) -> None:
    """Write events and name each that was acknowledged, until killed."""
    try:
        for number in count():
            store.push_events([event(f"u{number % 7}", "i1", number, str(number))])
            os.write(out, f"{number}\n".encode())
    finally:
        os._exit(1)


def test_an_export_is_named_as_what_it_is(store: FeastStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.csv: the output is Parquet; name it log\.parquet"):
        export_events(store.event_log, tmp_path / "log.csv")


@pytest.mark.parametrize(("column", "value"), [("answer_id", "answer-7"), ("kind", "buy")])
def test_optional_fields_of_an_event_are_in_the_log_and_its_export(
    store: FeastStore, tmp_path: Path, column: str, value: str
) -> None:
    store.push_events([replace(event("ann", "i3", 3, "a"), **{column: value}), event("bob", "i4", 4)])

    rows = [row for batch in store.event_log.batches() for row in batch.to_pylist()]
    export_events(store.event_log, tmp_path / "log.parquet")
    export_events(store.event_log, tmp_path / "again.parquet", base=tmp_path / "log.parquet")

    assert {row["user_id"]: row[column] for row in rows} == {"ann": value, "bob": None}
    for name in ("log.parquet", "again.parquet"):
        assert pq.read_table(tmp_path / name)[column].to_pylist() == [value, None]


def test_a_log_of_before_answers_and_kinds_is_read_and_written_on(published: Published, tmp_path: Path) -> None:
    store = published.copied(tmp_path / "store")
    path = tmp_path / "store" / "feast" / "events.db"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "CREATE TABLE events (number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, event_id TEXT NOT NULL,"
            " item_id TEXT NOT NULL, time INTEGER NOT NULL, logged INTEGER NOT NULL, UNIQUE (user_id, event_id))"
        )
        old.execute("INSERT INTO events VALUES (1, 'ann', 'a', 'i3', 5, 6)")

    assert logged(store) == [("ann", "i3", "a")]
    store.push_events([replace(event("ann", "i4", 4, "b"), answer_id="x", kind="buy")])
    assert logged(store) == [("ann", "i3", "a"), ("ann", "i4", "b")]
