"""The identity of a store: an emptied, replaced or copied store is recognised."""

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from elcrec.adapters.feast_config import FeastConfig, Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.quiet import quiet
from elcrec.errors import UserError
from elcrec.serving.ports import Event, StoreReplaced, StoreUnavailable
from tests.support.feature_tables import tables
from tests.support.servers import RedisServer, postgres_server, redis_server

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"
EVENT = Event(user_id="ann", item_id="x", timestamp=datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i1"]}), service=SERVICE)
    return folder


def items(store: FeastStore, user: str = "ann") -> list[str]:
    (found,) = store.histories([user], service=SERVICE)
    return found.item_ids if found else []


def test_an_emptied_redis_is_not_taken_for_the_truth(redis: RedisServer, tmp_path: Path) -> None:
    redis.client.flushall()
    store = FeastStore(tmp_path, REPOSITORY, Servers(redis=redis.url))
    store.publish(tables({"ann": ["i1"]}), service=SERVICE)
    assert items(store) == ["i1"]

    redis.client.flushall()
    for call in (lambda: items(store), lambda: store.push_events([EVENT])):
        with pytest.raises(StoreReplaced, match="emptied"):
            call()
    assert redis.client.dbsize() == 0

    store.publish(tables({"ann": ["i1", "i2"]}), service=SERVICE)
    assert items(store) == ["i1", "i2"]


def test_a_redis_taken_over_by_another_store_is_reported(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redis.client.flushall()
    first = FeastStore(tmp_path / "first", REPOSITORY, Servers(redis=redis.url))
    first.publish(tables({"ann": ["i1"]}), service=SERVICE)
    second = FeastStore(tmp_path / "second", REPOSITORY, Servers(redis=redis.url))
    second.publish(tables({"ann": ["i2"]}), service=SERVICE)
    assert items(first) == ["i2"]

    third = FeastStore(tmp_path / "third", REPOSITORY)
    third.publish(tables({"ann": ["i3"]}), service=SERVICE)
    FeastStore(tmp_path / "third", REPOSITORY, Servers(redis=redis.url)).publish(
        tables({"ann": ["i3"]}), service=SERVICE
    )

    assert "from now on it belongs to this one" in caplog.text
    with pytest.raises(StoreReplaced):
        items(first)


def test_a_store_from_before_stores_had_names_is_read_and_given_events(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "store"))
    with sqlite3.connect(folder / "feast" / "registry.db") as database:
        database.execute("DELETE FROM feast_metadata WHERE metadata_key = 'elcrec_store'")
    with sqlite3.connect(folder / "feast" / "online.db") as database:
        database.execute("DROP TABLE elcrec_identity")

    store = FeastStore(folder, REPOSITORY)
    store.push_events([EVENT])

    assert items(store) == ["i1", "x"]


def test_files_replaced_under_a_reader_are_reopened(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "store"))
    store = FeastStore(folder, REPOSITORY)
    assert items(store) == ["i1"]
    FeastStore(tmp_path / "other", REPOSITORY).publish(tables({"ann": ["other"]}), service=SERVICE)

    (folder / "feast").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable, match="file is missing"):
        items(store)
    assert not (folder / "feast" / "online.db").exists()
    shutil.copytree(tmp_path / "other" / "feast", folder / "feast", dirs_exist_ok=True)

    assert items(store) == ["other"]
    store.push_events([EVENT])
    assert items(store) == ["other", "x"]


def test_an_online_file_of_another_store_is_not_read(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "store"))
    store = FeastStore(folder, REPOSITORY)
    assert items(store) == ["i1"]
    FeastStore(tmp_path / "other", REPOSITORY).publish(tables({"ann": ["other"]}), service=SERVICE)

    shutil.copy(tmp_path / "other" / "feast" / "online.db", tmp_path / "online.db")
    for leftover in (folder / "feast").glob("online.db-*"):
        leftover.unlink()
    (tmp_path / "online.db").rename(folder / "feast" / "online.db")

    with pytest.raises(StoreReplaced):
        items(store)


@pytest.mark.parametrize("applied", [False, True])
def test_a_store_that_was_torn_down_is_none_until_the_next_push(published: Path, tmp_path: Path, applied: bool) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "store"))
    server = FeastStore(folder, REPOSITORY)
    assert items(server) == ["i1"]
    by_hand = FeastStore(folder, REPOSITORY)
    with quiet("feast"):
        by_hand._feast.teardown()
    if applied:
        by_hand._apply(by_hand._open())

    for store in (server, FeastStore(folder, REPOSITORY)):
        with pytest.raises(UserError):
            items(store)

    FeastStore(folder, REPOSITORY).publish(tables({"ann": ["i2"]}), service=SERVICE)
    stores = (server, FeastStore(folder, REPOSITORY))
    assert [items(store) for store in stores] == [["i2"], ["i2"]]
    for store in stores:
        assert store.push_events([EVENT]).late == 0


def test_readers_make_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `elcrec push` first"):
        items(FeastStore(tmp_path / "store", REPOSITORY))

    assert list(tmp_path.rglob("*.db")) == []


def test_a_copied_store_reads_its_own_offline_files(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "copy"))

    feast = FeastStore(folder, REPOSITORY)._feast

    for view in feast.list_feature_views():
        assert Path(view.batch_source.path).is_relative_to(folder)
    originals = FeastStore(published, REPOSITORY)._feast.list_feature_views()
    assert all(Path(view.batch_source.path).is_relative_to(published) for view in originals)


def test_redis_keeps_the_options_of_the_configuration(tmp_path: Path) -> None:
    repository = Path(shutil.copytree(REPOSITORY, tmp_path / "features"))
    path = repository / "feature_store.yaml"
    document = yaml.safe_load(path.read_text())
    document["online_store"] = {"type": "redis", "connection_string": "elsewhere:6379", "key_ttl_seconds": 3600}
    path.write_text(yaml.safe_dump(document))

    config = FeastConfig(repository=repository, folder=tmp_path / "feast", servers=Servers(redis="here:6379")).load()

    assert config.online_store.key_ttl_seconds == 3600
    assert config.online_store.connection_string.startswith("here:6379")


def test_events_are_accepted_without_a_registry(tmp_path: Path) -> None:
    with postgres_server() as url:
        FeastStore(tmp_path, REPOSITORY, Servers(registry=url)).publish(tables({"ann": ["i1"]}), service=SERVICE)
        server = FeastStore(tmp_path, REPOSITORY, Servers(registry=url))
        server.check(SERVICE)

    assert server.push_events([EVENT]).accepted == 1
    assert items(server) == ["i1", "x"]
