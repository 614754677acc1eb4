"""After `elcrec forget` a user is in no file, table, key or log, and no later training brings them back."""

import gc
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec import cli
from elcrec.adapters.event_export import export_events
from elcrec.adapters.feast_config import Servers
from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.artifacts import md5_of, read_json, write_json
from elcrec.config import GateConfig, PushConfig, SequencesConfig, ValidateConfig
from elcrec.data.user_keys import user_key
from elcrec.errors import UserError
from elcrec.serving.ports import Event
from elcrec.stages.forget import forget
from elcrec.stages.push import push
from elcrec.stages.recommend_all import recommend_all
from elcrec.stages.sequences import build_sequences
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE
from tests.support.push_inputs import Inputs, add_model, make_inputs
from tests.support.serving import Redis

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
WHO = "zoe@example.org"
SERVICE = "elcrec_v1"
SALT = "5a17"
LENIENT = ValidateConfig(max_quarantine_share=0.5, min_rows=10)
ACCEPTING = PushConfig(gate=GateConfig(max_regression=1.0))


@dataclass
class World:
    """A store and a work folder, full of a user."""

    root: Path
    servers: Servers

    @property
    def store(self) -> FeastStore:
        return FeastStore(self.root / "store", ROOT / "features", self.servers)

    def push(self, inputs: Inputs) -> None:
        registry = MlflowRegistry(self.root / "store" / "mlflow")
        outcome = push(ACCEPTING, *inputs.paths, self.root / "work" / "push", registry=registry, features=self.store)
        assert outcome["accepted"]

    def forget(self, user_id: str = WHO) -> dict[str, int]:
        columns = ("user_id", LENIENT.user_column)
        return forget(user_id, self.root / "store", [self.root / "work"], columns=columns, features=self.store)


@pytest.fixture(scope="module")
def pushed(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world on SQLite with nothing but a push, and its inputs."""
    world = World(tmp_path_factory.mktemp("pushed"), Servers())
    shutil.copytree(empty_registry, world.root / "store" / "mlflow")
    world.push(make_inputs(world.root / "inputs", prefix="i"))
    return world.root


@pytest.fixture
def plain(pushed: Path, tmp_path: Path) -> World:
    return World(shutil.copytree(pushed, tmp_path / "world"), Servers())


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("erasure") / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest, empty_registry: Path, tmp_path: Path) -> World:
    shutil.copytree(empty_registry, tmp_path / "store" / "mlflow")
    servers = Servers()
    if request.param == "redis":
        running: Redis = request.getfixturevalue("redis")
        running.client.flushall()
        servers = Servers(redis=f"127.0.0.1:{running.port},socket_timeout=10")
    world, work = World(tmp_path, servers), tmp_path / "work"
    write_log(work / "raw", [*users(), WHO])
    run_stages(world)
    inputs = add_model(work, work / "sequences", model_seed=0)
    world.push(inputs)
    world.store.push_events([event(WHO, "i1", "secret-click"), event("user-1", "i1", "other-click")])
    world.store.push_events([event("newcomer", "i1", "first-click")])
    # As stores of earlier versions have it.
    world.store.push_events([event(f" {WHO}", "i1", "secret-click")])
    export_events(world.store.event_log, work / "exported.parquet")
    bundle = work / "push" / "bundle"
    recommend_all(bundle, tmp_path / "store" / "feast" / "data" / "histories.parquet", work / "recs.parquet", 3, None)
    return world


def users() -> list[str]:
    return [f"user-{number}" for number in range(20)]


def event(user: str, item: str, event_id: str) -> Event:
    return Event(user_id=user, item_id=item, timestamp=datetime(2026, 3, 1, tzinfo=UTC), event_id=event_id)


def write_log(folder: Path, names: list[str]) -> None:
    """A raw log with a faulty row of each user, which goes to quarantine and onto the page."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id,item_id,timestamp"]
    for place, name in enumerate(names):
        lines += [f"{name},i{(place + step) % 12},2026-01-0{step + 1}" for step in range(6)]
        lines += [f"{name},i1,never"]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    source = {"schema_version": 1, "dataset": "file", "format": "csv", "file": "data.csv"}
    write_json(folder / "source.json", {**source, "md5": md5_of(folder / "data.csv"), "origin": "test"})


def run_stages(world: World) -> None:
    work = world.root / "work"
    validate(
        LENIENT, work / "raw", work / "validated", forgotten=world.root / "store" / "forgotten.json", engine=ENGINE
    )
    build_sequences(SequencesConfig(), work / "validated", work / "sequences", engine=ENGINE)


def holding(root: Path, text: str) -> list[str]:
    """Return the files below a folder that hold a text, in their bytes or in their rows."""
    found = []
    gc.collect()  # a store that is let go closes its files, and SQLite removes what lies beside them
    for path in sorted(each for each in root.rglob("*") if each.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pydict(), default=str).encode()
        if text.encode() in content:
            found.append(str(path.relative_to(root)))
    return found


def keys_holding(redis: Redis, text: str) -> list[bytes]:
    client = redis.client
    return [key for key in client.scan_iter("*") if text.encode() in key or text.encode() in client.dump(key)]


def test_a_forgotten_user_is_in_no_file_table_key_or_log_in_any_spelling(
    world: World, request: pytest.FixtureRequest
) -> None:
    assert len(holding(world.root, WHO)) >= 8
    before = {path: path.read_bytes() for path in world.root.rglob("*.csv")}

    found = world.forget()

    assert found["logged_events"] == 2
    assert found["online_rows"] >= 1
    assert found["offline_rows"] >= 2
    assert holding(world.root, WHO) == []
    assert holding(world.root, "secret-click") == []
    assert before != {path: path.read_bytes() for path in world.root.rglob("*.csv")}
    if world.servers.redis:
        running: Redis = request.getfixturevalue("redis")
        assert keys_holding(running, WHO) == []
        assert running.erased(WHO)
        assert keys_holding(running, "user-1")
    assert world.store.histories([WHO], service=SERVICE) == [None]
    others = world.store.histories([*users(), "newcomer"], service=SERVICE)
    assert all(others)


def test_a_forgotten_user_is_in_no_exposure_and_in_no_table_that_comes_from_them(plain: World) -> None:
    shown, key, other = plain.root / "shown", user_key(WHO, SALT), user_key("user-1", SALT)
    joined = plain.root / "work" / "attributed" / "attributed.parquet"
    for path in (shown / "1.parquet", joined):
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = pa.array([WHO, "user-1"])
        pq.write_table(pa.table({"user_key": [key, other], "user_id": ids, "answer_id": ["a", "b"]}), path)

    columns, work = ("user_id",), [plain.root / "work"]
    given = {"features": plain.store, "exposures": shown, "user_key": key}
    found = forget(WHO, plain.root / "store", work, columns=columns, **given)

    assert found["files"] == 2
    assert holding(plain.root, key) == []
    assert holding(plain.root, WHO) == []
    assert len(holding(plain.root, other)) == 2


def test_no_later_training_push_or_event_brings_a_forgotten_user_back(world: World) -> None:
    work = world.root / "work"
    old = make_copy(work, world.root / "old")
    world.forget()

    write_log(work / "raw", [*users(), WHO])
    run_stages(world)
    assert holding(work, WHO) == ["raw/data.csv"]
    assert read_json(work / "validated" / "validation.json")["counts"]["forgotten"] == 7

    world.push(old)
    assert world.store.histories([WHO], service=SERVICE) == [None]
    outcome = world.store.push_events([event(WHO, "i1", "secret-click"), event("user-1", "i2", "b")])
    assert (outcome.refused, outcome.accepted) == (1, 1)
    assert holding(world.root / "store", WHO) == []


def make_copy(work: Path, folder: Path) -> Inputs:
    """Inputs of a push that were made before, where nobody was forgotten."""
    write_log(folder / "raw", [*users(), WHO])
    validate(LENIENT, folder / "raw", folder / "validated", engine=ENGINE)
    build_sequences(SequencesConfig(), folder / "validated", folder / "sequences", engine=ENGINE)
    return add_model(folder, folder / "sequences", model_seed=3)


def test_a_forgotten_user_who_returns_is_known_from_then_on(world: World) -> None:
    world.forget()
    now = datetime.now(UTC)

    outcome = world.store.push_events([Event(user_id=WHO, item_id="i3", timestamp=now)])

    assert outcome.accepted == 1
    (found,) = world.store.histories([WHO], service=SERVICE)
    assert found is not None
    assert found.item_ids == ["i3"]


def test_documents_on_a_changed_file_are_updated(plain: World) -> None:
    work = plain.root / "work"
    write_log(work / "raw", [*users(), WHO])
    run_stages(plain)

    plain.forget()

    assert read_json(work / "raw" / "source.json")["md5"] == md5_of(work / "raw" / "data.csv")
    split = read_json(work / "sequences" / "split.json")
    assert split["md5"] == md5_of(work / "sequences" / "sequences.parquet")
    assert (split["num_users"], split["num_interactions"], split["num_test_targets"]) == (20, 120, 20)
    assert not (work / "validated" / "validation.html").exists(), "it may show rows of the quarantine"
    run_stages(plain)


def test_a_benchmark_log_and_integer_ids_are_erased_by_whole_ids(plain: World) -> None:
    raw = plain.root / "work" / "raw"
    raw.mkdir(parents=True)
    (raw / "data.txt").write_text("1 5 6\n11 1 7\n2 1 8\n")
    write_json(raw / "source.json", {"format": "benchmark", "file": "data.txt", "md5": md5_of(raw / "data.txt")})
    pq.write_table(pa.table({"user_id": [1, 11], "item_id": [1, 1]}), plain.root / "work" / "log.parquet")

    assert plain.forget("1")["files"] == 2

    assert (raw / "data.txt").read_text() == "11 1 7\n2 1 8\n"
    assert pq.read_table(plain.root / "work" / "log.parquet").to_pylist() == [{"user_id": 11, "item_id": 1}]


def test_json_lines_are_erased_by_whole_ids(plain: World) -> None:
    log = plain.root / "work" / "raw" / "data.jsonl"
    log.parent.mkdir(parents=True)
    others = ['{"user_id": 11, "item_id": "1"}', '{"item_id": 1}', "torn {"]
    log.write_text("\n".join(['{"item_id": 3, "user_id": "1"}', *others, '{"user_id": 1}']))

    assert plain.forget("1")["files"] == 1

    assert log.read_text().splitlines() == others


def test_the_list_reveals_no_user_and_a_damaged_one_is_an_error(plain: World) -> None:
    plain.forget("user-3")
    path = plain.root / "store" / "forgotten.json"
    assert "user-3" not in path.read_text()

    write_json(path, {"users": []})

    with pytest.raises(UserError, match="not a list of forgotten users"):
        plain.forget("user-4")


def test_the_command_prints_what_it_found(
    plain: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ELCREC_FEATURES", str(ROOT / "features"))
    options = ["--params", str(ROOT / "params.yaml"), "--store", str(plain.root / "store")]

    assert cli.main(["forget", "user-3", *options, "--workdir", str(plain.root / "inputs")]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert said["online_rows"] == "2"
    assert int(said["files"]) >= 3

    assert cli.main(["forget", "user-3", *options, "--workdir", "nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    with sqlite3.connect(plain.root / "store" / "feast" / "online.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
