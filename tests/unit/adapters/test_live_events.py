"""Live events on both online stores: all of them in order, also with concurrent writers."""

import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.data.split_points import DISLIKED
from elcrec.errors import UserError
from elcrec.serving.ports import Event, StoreReplaced, StoreUnavailable
from elcrec.stages.events import replay_events
from tests.support import feature_tables
from tests.support.servers import RedisServer, redis_server

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"
WINDOW = 50
START = datetime(2026, 3, 1, tzinfo=UTC)
CATALOGUE = [
    *(f"i{number}" for number in range(97)),
    *(f"x{number}" for number in range(60)),
    *(f"w{writer}-{number}" for writer in range(8) for number in range(5)),
    *("x", "y", "live", "only-live"),
]
tables = partial(feature_tables.tables, items=CATALOGUE)
PUBLISHED = tables({"ann": ["i1", "i2"], "Zoë 7": ["i2"]})


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    FeastStore(folder, REPOSITORY).publish(PUBLISHED, service=SERVICE)
    return folder


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, published: Path, tmp_path: Path) -> FeastStore:
    if request.param == "sqlite":
        return FeastStore(shutil.copytree(published, tmp_path / "store"), REPOSITORY)
    running: RedisServer = request.getfixturevalue("server")
    running.client.flushall()
    # Eight threads of one process on a loaded machine may wait for each other longer than a request should.
    patient = f"{running.address},socket_timeout=10"
    store = FeastStore(tmp_path / "store", REPOSITORY, Servers(redis=patient))
    store.publish(PUBLISHED, service=SERVICE)
    return store


def event(user: str, item: str, seconds: float, event_id: str | None = None, kind: str | None = None) -> Event:
    moment = START + timedelta(seconds=seconds)
    return Event(user_id=user, item_id=item, timestamp=moment, event_id=event_id, kind=kind)


def items(store: FeastStore, user: str) -> list[str]:
    (found,) = store.users([user], service=SERVICE)
    return found.item_ids if found else []


def test_a_dislike_reaches_users_with_a_history_and_those_without(store: FeastStore) -> None:
    events = [event("ann", "i5", 3, "a", "no"), event("new", "i6", 3, "b", "no"), event("ann", "i7", 4, "c", "view")]
    for _ in range(2):
        store.push_events(events, dislikes={"no"})
    replay_events(store, {"no"})

    ann, new = store.histories(["ann", "new"], service=SERVICE)
    assert (ann.item_ids, ann.seen) == (["i1", "i2", "i7"], ["i5", f"{DISLIKED}i5"])
    assert (new.item_ids, new.updated, new.seen) == ([], None, ["i6", f"{DISLIKED}i6"])
    assert [user.item_ids if user else None for user in store.users(["new"], service=SERVICE)] in ([[]], [None])

    store.publish(PUBLISHED, service=SERVICE)
    store.push_events([event("new", "x1", 9)])
    ann, new = store.histories(["ann", "new"], service=SERVICE)
    assert f"{DISLIKED}i5" in ann.seen
    assert (new.item_ids, new.seen) == (["x1"], ["i6", f"{DISLIKED}i6"])


def test_late_and_repeated_events_keep_the_history_in_order_and_twice_nothing(store: FeastStore) -> None:
    store.push_events([event("ann", "x3", 3)])
    store.push_events([event("ann", "x1", 1), event("new", "x1", 1)])
    outcome = store.push_events([event("ann", "x2", 2), event("ann", "x3", 3), event("ann", "x1", 1)])

    assert items(store, "ann") == ["i1", "i2", "x1", "x2", "x3"]
    assert items(store, "new") == ["x1"]
    assert (outcome.accepted, outcome.duplicates, outcome.late, outcome.users) == (1, 2, 0, 1)


def test_clicks_within_one_second_are_distinguished(store: FeastStore) -> None:
    store.push_events([event("ann", "x", 0.000002), event("ann", "x", 0.000001), event("ann", "x", 0.000001)])

    (ann,) = store.users(["ann"], service=SERVICE)

    assert ann is not None
    assert [time.microsecond for time in ann.event_times[-2:]] == [1, 2]


def test_a_later_publication_keeps_newer_live_events(store: FeastStore) -> None:
    store.push_events([event("ann", "live", 5), event("cid", "only-live", 5)])

    store.publish(tables({"ann": ["i1", "i2", "i3"], "Zoë 7": ["i9"]}, bundle="b2"), service=SERVICE)

    assert items(store, "ann") == ["i1", "i2", "i3", "live"]
    assert items(store, "Zoë 7") == ["i9"]
    assert items(store, "cid") == ["only-live"]


def test_ten_thousand_events_with_repeats_and_disorder_from_eight_threads_are_all_there(store: FeastStore) -> None:
    chance = random.Random(5)
    users = [f"u{number}" for number in range(220)]
    events = [event(users[number % len(users)], f"i{number % 97}", number) for number in range(10_000)]
    replay = events + chance.sample(events, 3_000)
    for start in range(0, len(replay), 500):  # disorder far and near
        part = replay[start : start + 500]
        chance.shuffle(part)
        replay[start : start + 500] = part
    batches = [replay[start : start + 100] for start in range(0, len(replay), 100)]
    chance.shuffle(batches)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(store.push_events, batches))

    expected: dict[str, list[Event]] = {user: [] for user in users}
    for each in events:
        expected[each.user_id].append(each)
    assert max(len(mine) for mine in expected.values()) < WINDOW
    for user, found in zip(users, store.users(users, service=SERVICE), strict=True):
        assert found is not None
        assert found.item_ids == [each.item_id for each in expected[user]]
        assert found.event_times == [each.timestamp for each in expected[user]]
    assert sum(outcome.accepted for outcome in outcomes) == 10_000
    assert sum(outcome.duplicates for outcome in outcomes) == 3_000


def test_eight_writers_of_one_user_lose_nothing(store: FeastStore) -> None:
    start = threading.Barrier(8)

    def write(writer: int) -> None:
        start.wait()
        for number in range(5):
            store.push_events([event("ann", f"w{writer}-{number}", writer + number * 10)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    found = items(store, "ann")
    assert len(found) == 42
    assert {f"w{writer}-{number}" for writer in range(8) for number in range(5)} <= set(found)


def test_a_publication_while_events_arrive_loses_none(store: FeastStore) -> None:
    done = threading.Event()
    sent: list[str] = []

    def keep_clicking() -> None:
        while not done.is_set() and len(sent) < 40:
            store.push_events([event("ann", f"x{len(sent)}", len(sent))])
            sent.append(f"x{len(sent)}")

    clicker = threading.Thread(target=keep_clicking)
    clicker.start()
    try:
        for turn in range(2):
            store.publish(tables({"ann": ["i1", "i2"]}, bundle=f"t{turn}"), service=SERVICE)
    finally:
        done.set()
        clicker.join()

    assert sent
    assert items(store, "ann") == ["i1", "i2", *sent]


def test_the_window_keeps_the_newest_events(store: FeastStore) -> None:
    outcome = store.push_events([event("ann", f"x{second}", second) for second in range(60)])

    assert items(store, "ann") == [f"x{second}" for second in range(10, 60)]
    assert (outcome.accepted, outcome.late) == (50, 10)
    assert store.push_events([event("ann", "x3", 3)]).late == 1


def test_users_known_from_events_alone_are_bounded_and_a_publication_makes_room(store: FeastStore) -> None:
    crowd = [event(f"stranger-{number}", "x", 1) for number in range(6)]

    first = store.push_events([*crowd[:2], event("ann", "x", 1)], new_users=3)
    second = store.push_events(crowd, new_users=3)
    third = store.push_events([event("stranger-5", "x", 1), event("stranger-0", "y", 2)], new_users=3)
    store.publish(tables({"ann": ["i1"], "stranger-0": ["x"]}), service=SERVICE)
    fourth = store.push_events(crowd[4:], new_users=3)

    assert (first.accepted, first.refused) == (3, 0)
    assert (second.accepted, second.duplicates, second.refused) == (1, 2, 3)
    assert (third.accepted, third.refused) == (1, 1)
    assert (fourth.accepted, fourth.refused) == (1, 1)
    known = store.users([f"stranger-{number}" for number in range(6)], service=SERVICE)
    assert [bool(each) for each in known].count(True) == 4


def test_an_item_that_left_the_window_is_seen_after_the_next_push_too(store: FeastStore) -> None:
    store.push_events([event("ann", f"i{second % 2 + 1}", second) for second in range(60)])
    store.push_events([event("ann", "bogus", 100 + second) for second in range(60)])
    store.publish(tables({"ann": ["i1"], "cid": ["i2"]}), service=SERVICE)

    ann, cid = store.histories(["ann", "cid"], service=SERVICE)

    assert ann is not None
    assert cid is not None
    assert ann.item_ids.count("bogus") == 10
    assert len(ann.item_ids) == 60
    assert (ann.seen, cid.seen) == (["i1", "i2"], [])


def test_one_bad_event_keeps_all_of_them_out(store: FeastStore) -> None:
    with pytest.raises(UserError, match="event 2: item_id is empty"):
        store.push_events([event("ann", "x", 1), event("ann", "", 2)])

    assert items(store, "ann") == ["i1", "i2"]


def test_without_a_publication_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `elcrec push` first"):
        FeastStore(tmp_path, REPOSITORY).push_events([event("ann", "x", 1)])


def test_a_lost_redis_is_reported_without_its_password_and_reconnected(tmp_path: Path) -> None:
    with redis_server() as server:
        store = FeastStore(tmp_path, REPOSITORY, Servers(redis=server.url))
        store.publish(PUBLISHED, service=SERVICE)
        assert items(store, "ann") == ["i1", "i2"]

        server.kill()
        for call in (lambda: store.users(["ann"], service=SERVICE), lambda: store.push_events([event("ann", "x", 1)])):
            with pytest.raises(StoreUnavailable, match="does not answer") as raised:
                call()
            assert server.password not in str(raised.value)
        server.start()

        with pytest.raises(StoreReplaced):  # this Redis keeps nothing
            store.users(["ann"], service=SERVICE)
        store.publish(PUBLISHED, service=SERVICE)
        store.push_events([event("ann", "x", 1)])
        assert items(store, "ann") == ["i1", "i2", "x"]
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in written if server.password.encode() in path.read_bytes()]


def test_readers_wait_a_fraction_of_a_second_and_no_file_has_the_password(tmp_path: Path) -> None:
    store = FeastStore(tmp_path, REPOSITORY, Servers(redis="redis://:s3cret@127.0.0.1:1/0"))

    connection = store._config.load().online_store.connection_string

    assert "socket_timeout=0.2,socket_connect_timeout=0.2,retry=null" in connection
    assert "s3cret" not in (tmp_path / "feast" / "feature_store.yaml").read_text()
