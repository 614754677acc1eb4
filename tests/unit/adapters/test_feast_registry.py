"""The registry on SQLite and on PostgreSQL: no applied object is lost, and the intended services are served."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from elcrec.adapters.feast_config import Servers, connection_string
from elcrec.adapters.feast_store import FeastStore
from elcrec.errors import UserError
from elcrec.serving.ports import StoreUnavailable
from tests.support import concurrent_apply
from tests.support.feature_tables import tables
from tests.support.servers import postgres_server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3] / "features"
SERVICE = "elcrec_v1"
EXTRA = """
from datetime import timedelta
from entities import user
from feast import FeatureService, FeatureView, Field
from feast.types import Int64, String
from sources import model_output_file

view = FeatureView(name="view_{name}", entities=[user], ttl=timedelta(0), source=model_output_file,
                   schema=[Field(name="user_id", dtype=String), Field(name="intent", dtype=Int64)])
service = FeatureService(name="service_{name}", features=[view])
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(request: pytest.FixtureRequest) -> Servers:
    if request.param == "sqlite":
        return Servers()
    url: str = request.getfixturevalue("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return Servers(registry=url)


def repository_with(folder: Path, name: str) -> Path:
    shutil.copytree(REPOSITORY, folder)
    (folder / "extra.py").write_text(EXTRA.format(name=name))
    return folder


def other_schema(folder: Path) -> Path:
    shutil.copytree(REPOSITORY, folder)
    views = folder / "views.py"
    views.write_text(views.read_text().replace('name="vector", dtype=Array(Float32)', 'name="vector", dtype=Float32'))
    return folder


def test_applied_at_the_same_moment_by_four_processes_nothing_is_lost(servers: Servers, tmp_path: Path) -> None:
    names = ["a", "b", "c", "c"]
    repositories = [repository_with(tmp_path / f"repository{place}", name) for place, name in enumerate(names)]
    case = {"store": str(tmp_path), "repositories": [str(each) for each in repositories], "registry": servers.registry}

    subprocess.run([sys.executable, concurrent_apply.__file__, json.dumps(case)], check=True, timeout=300)

    store = FeastStore(tmp_path, REPOSITORY, servers)
    feast = store._open()
    services = {service.name for service in feast.list_feature_services()}
    views = {view.name for view in feast.list_feature_views()}
    assert services == {"elcrec_v1", "elcrec_items_v1", "service_a", "service_b", "service_c"}
    assert views == {"user_history", "user_model_output", "item_statistics", "view_a", "view_b", "view_c"}


def test_what_was_published_is_served_and_has_the_schema_that_the_repository_defines(
    servers: Servers, tmp_path: Path
) -> None:
    store = FeastStore(tmp_path, REPOSITORY, servers)
    schema = store.schema(SERVICE)
    store.publish(tables({"ann": ["i1"]}), service=SERVICE)

    reader = FeastStore(tmp_path, REPOSITORY, servers)
    reader.check(SERVICE, schema)

    (ann,) = reader.users(["ann"], service=SERVICE)
    assert ann is not None
    assert ann.item_ids == ["i1"]


def test_a_service_that_differs_or_is_missing_is_refused(servers: Servers, tmp_path: Path) -> None:
    store = FeastStore(tmp_path, REPOSITORY, servers)
    store.publish(tables({"ann": ["i1"]}), service=SERVICE)
    meant = FeastStore(tmp_path, other_schema(tmp_path / "other"), servers).schema(SERVICE)

    with pytest.raises(UserError, match="'elcrec_v1' has a schema other than the one with which"):
        store.check(SERVICE, meant)
    with pytest.raises(UserError, match="'elcrec_v9' is unknown"):
        store.check("elcrec_v9")
    store.check(SERVICE)


def test_a_running_reader_learns_of_new_definitions_when_it_checks(tmp_path: Path) -> None:
    first = FeastStore(tmp_path, REPOSITORY)
    first.publish(tables({"ann": ["i1"]}), service=SERVICE)
    reader = FeastStore(tmp_path, REPOSITORY)
    reader.users(["ann"], service=SERVICE)

    newer = FeastStore(tmp_path, other_schema(tmp_path / "other"))
    newer._apply(newer._open())

    reader.check(SERVICE, newer.schema(SERVICE))


def test_a_registry_that_is_gone_stops_checks_but_no_reader(tmp_path: Path) -> None:
    with postgres_server() as url:
        store = FeastStore(tmp_path, REPOSITORY, Servers(registry=url))
        store.publish(tables({"ann": ["i1"]}), service=SERVICE)
        before = store.users(["ann"], service=SERVICE)

    assert store.users(["ann"], service=SERVICE) == before
    with pytest.raises(StoreUnavailable, match="registry does not answer"):
        store.check(SERVICE)
    assert store.users(["ann"], service=SERVICE) == before


def test_a_schema_is_read_without_touching_the_store(tmp_path: Path) -> None:
    store = FeastStore(tmp_path / "store", REPOSITORY)

    assert store.schema(SERVICE) == FeastStore(tmp_path / "elsewhere", REPOSITORY).schema(SERVICE)
    assert store.schema(SERVICE) != store.schema("elcrec_items_v1")
    with pytest.raises(UserError, match="'elcrec_v9' is unknown"):
        store.schema("elcrec_v9")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("redis://cache:6380/2", "cache:6380,db=2"),
        ("redis://:12345@cache", 'cache:6379,db=0,password="12345"'),
        ("rediss://me:p%40ss@cache/0", 'cache:6379,db=0,username="me",password="p@ss",ssl=true'),
        ("cache:6379,db=1,password=x", "cache:6379,db=1,password=x"),
    ],
)
def test_redis_may_be_named_by_url_or_in_feasts_own_form(address: str, expected: str) -> None:
    assert connection_string(address) == expected


@pytest.mark.parametrize("address", ["http://cache:6379", "redis://cache/x", "redis://:a,b@cache"])
def test_an_address_that_is_none_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(UserError, match="REDIS") as raised:
        connection_string(address)

    assert address not in str(raised.value)
