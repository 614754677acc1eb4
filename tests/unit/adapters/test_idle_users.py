"""Idle users leave the online store at a push, on SQLite and Redis."""

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.redis_rows import RedisRows
from elcrec.adapters.sqlite_rows import SqliteRows
from elcrec.data.split_points import DISLIKED
from elcrec.serving.histories import microseconds
from elcrec.serving.ports import Event, FeatureTables
from tests.support.feature_tables import TIME, tables
from tests.support.published import SERVICE, Published
from tests.support.servers import RedisServer

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
USERS = {"ann": 0, "bob": 31, "cid": 30, "dan": 40}
"""How many days before the log's end each of them was last there."""


def day(number: float) -> datetime:
    """So many days before the end of the log."""
    return START - timedelta(days=number)


def log(users: Mapping[str, float]) -> FeatureTables:
    """Users who met i0 once, then i1 a day before i2, and were last there so many days before START."""
    base = tables({user_id: ["i1", "i2"] for user_id in users}, items=["i0", "i1", "i2"])
    times = pa.array([[day(age + 1), day(age)] for age in users.values()], pa.list_(TIME))
    newest = pa.array([day(age) for age in users.values()], TIME)
    histories = base.histories.set_column(2, "event_times", times).set_column(3, "event_timestamp", newest)
    return replace(base, histories=histories.append_column("seen_items", pa.array([["i0"]] * len(users))))


def event(user: str, item: str, age: float) -> Event:
    return Event(user_id=user, item_id=item, timestamp=day(age))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published.push(tmp_path_factory.mktemp("store"), log(USERS))


@pytest.fixture(scope="module")
def published_to_redis(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("redis") / "store"
    return Published.push(folder, log(USERS), redis=server, servers=Servers(redis=server.url))


@pytest.fixture(params=["published", "published_to_redis"], ids=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FeastStore:
    """A store with everybody of USERS, published before anybody could expire."""
    published: Published = request.getfixturevalue(request.param)
    return published.copied(tmp_path / "store")


def items(store: FeastStore, *users: str) -> list[list[str] | None]:
    return [found.item_ids if found else None for found in store.histories(users, service=SERVICE)]


def seen(store: FeastStore, user: str) -> list[str]:
    (found,) = store.histories([user], service=SERVICE)
    assert found is not None
    return found.seen


def keys(store: FeastStore, server: RedisServer) -> str:
    """All that the online store holds, keys and rows, as text."""
    online = store._folder / "online.db"
    if not online.exists():
        contents = [(key, server.client.dump(key)) for key in server.client.scan_iter("*") if b"_events:" not in key]
        return repr(contents)
    with closing(sqlite3.connect(online)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return repr([connection.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in names])


def test_rows_and_keys_of_idle_users_are_gone_and_those_of_others_stay(
    store: FeastStore, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "elcrec"):
        counts = store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    assert counts == {"user_history": 2, "user_model_output": 2, "item_statistics": 3}
    assert items(store, *USERS) == [["i1", "i2"], None, ["i1", "i2"], None]
    ann, bob = store.users(["ann", "bob"], service=SERVICE)
    assert (ann and ann.bundle, bob) == ("b1", None)
    assert seen(store, "ann") == ["i0"]
    held = keys(store, server)
    assert [user in held for user in USERS] == [True, False, True, False]
    told = [record.getMessage() for record in caplog.records if "were idle" in record.getMessage()]
    assert told == [
        "2 users of the log were idle for more than 30 days and not published; 2 users left the online store"
    ]


def test_offline_files_keep_idle_users(store: FeastStore) -> None:
    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    for name in ("histories", "history_rows", "model_outputs"):
        kept = pq.read_table(store._folder / "data" / f"{name}.parquet")["user_id"].to_pylist()
        assert set(kept) == set(USERS)


def test_a_live_event_keeps_a_user_and_the_history_of_the_log(store: FeastStore) -> None:
    store.push_events([event("bob", "i1", 29), event("dan", "i1", 31)])

    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    assert items(store, "bob", "dan") == [["i1", "i2", "i1"], None]
    (bob,) = store.users(["bob"], service=SERVICE)
    assert bob is not None
    assert bob.bundle == "b1"


def test_users_of_earlier_logs_and_of_events_alone_leave_and_free_their_places(
    store: FeastStore, server: RedisServer
) -> None:
    store.push_events([event("zed", "i1", 31), event("fay", "i1", 1)])

    store.publish(log({"ann": 0}), service=SERVICE, idle_days=DAYS)

    assert items(store, *USERS, "zed", "fay") == [["i1", "i2"], None, ["i1", "i2"], None, None, ["i1"]]
    assert "zed" not in keys(store, server)
    assert store.push_events([event("gus", "i1", 1)], new_users=2).accepted == 1


def test_a_live_event_restores_an_expired_user_and_the_next_push_the_history(store: FeastStore) -> None:
    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    store.push_events([event("bob", "i1", 1)])
    assert (items(store, "bob"), seen(store, "bob")) == ([["i1"]], [])

    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)
    assert (items(store, "bob"), seen(store, "bob")) == ([["i1", "i2", "i1"]], ["i0"])


def test_without_the_option_all_users_stay(store: FeastStore, server: RedisServer) -> None:
    store.push_events([event("zed", "i1", 1000)])

    counts = store.publish(log(USERS), service=SERVICE)

    assert counts["user_history"] == 4
    assert items(store, *USERS, "zed") == [*[["i1", "i2"]] * 4, ["i1"]]
    assert all(user in keys(store, server) for user in [*USERS, "zed"])


def test_an_expired_user_is_forgotten_everywhere_else(store: FeastStore) -> None:
    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    assert store.forget("bob") == {"offline_rows": 4, "online_rows": 0, "logged_events": 0}


@pytest.mark.parametrize("store", ["published_to_redis"], indirect=True)
def test_a_user_with_an_event_during_the_removal_of_idle_users_stays(
    store: FeastStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite an event waits for the sweep's transaction."""
    rows = store._current().writable
    assert isinstance(rows, RedisRows)
    key_of = rows._redis_key

    def event_after_the_row_was_read(user_id: str) -> bytes:
        monkeypatch.undo()
        store.push_events([event("bob", "i1", 1)])
        return key_of(user_id)

    monkeypatch.setattr(rows, "_redis_key", event_after_the_row_was_read)

    assert rows.expire(microseconds(day(DAYS))) == 1
    assert items(store, *USERS) == [["i1", "i2"], ["i1", "i2", "i1"], ["i1", "i2"], None]


@pytest.mark.parametrize("store", ["published_to_redis"], indirect=True)
def test_keys_of_another_project_in_the_same_redis_stay(store: FeastStore, server: RedisServer) -> None:
    rows = store._current().writable
    assert isinstance(rows, RedisRows)
    mine = rows._redis_key("bob")
    other = mine.removesuffix(b"elcrec") + b"another_elcrec"
    server.client.copy(mine, other)

    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    assert (server.client.exists(mine), server.client.exists(other)) == (0, 1)


def test_a_killed_publication_starts_again_with_another_number_of_days(
    store: FeastStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SqliteRows, "expire", lambda *_: 1 / 0)
        patch.setattr(RedisRows, "expire", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.publish(log({**USERS, "zed": 50}), service=SERVICE, idle_days=DAYS)

    store.publish(log({**USERS, "zed": 50}), service=SERVICE)

    assert items(store, "zed") == [["i1", "i2"]]


def test_a_dislike_keeps_a_user_who_has_nothing_else(store: FeastStore) -> None:
    disliked = [replace(event("zed", "i1", 1), kind="no"), replace(event("dan", "i2", 1), kind="no")]
    store.publish(log(USERS), service=SERVICE, idle_days=DAYS)
    store.push_events(disliked, dislikes=frozenset({"no"}))

    for _ in range(2):
        store.publish(log(USERS), service=SERVICE, idle_days=DAYS)

    assert f"{DISLIKED}i1" in seen(store, "zed")
    assert f"{DISLIKED}i2" in seen(store, "dan")
