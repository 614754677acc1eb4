"""Faults around a server, which continues or recovers by itself."""

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import Installation, Redis, Reply, Server, eventually, serving

REQUEST = {"user_id": "user-2", "history": ["item-1", "item-2"], "k": 3}
QUICK = ("poll=0.2", "store_retry=0.1", "store_timeout=1")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def installation(pushed: Installation, tmp_path: Path) -> Installation:
    """A store of one's own."""
    shutil.copytree(pushed.folder, tmp_path / "store")
    shutil.copytree(pushed.inputs.sequences.parent, tmp_path / "inputs")
    inputs = type(pushed.inputs)(
        model=tmp_path / "inputs" / pushed.inputs.model.name,
        sequences=tmp_path / "inputs" / pushed.inputs.sequences.name,
        evaluation=tmp_path / "inputs" / pushed.inputs.evaluation.name,
    )
    return Installation(folder=tmp_path / "store", inputs=inputs, features=pushed.features)


@contextmanager
def load(server: Server, workers: int = 4) -> Iterator[list[Reply]]:
    """Ask without a pause while the block runs; yields every answer."""
    answers: list[Reply] = []
    over = threading.Event()

    def ask() -> None:
        with server.client() as client:
            while not over.is_set():
                answers.append(client.post("/recommend", REQUEST))

    threads = [threading.Thread(target=ask) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def recommend(server: Server, **changes: Any) -> Any:
    reply = server.post("/recommend", REQUEST | changes)
    assert reply.status == 200, reply.body
    return reply.json


def is_fallback(server: Server) -> bool:
    found = recommend(server)
    assert (found["history"]["source"] == "store") == found["store_available"]
    return not found["store_available"]


def version(server: Server) -> str:
    return str(recommend(server)["model"]["version"])


def test_the_champion_is_swapped_under_load_without_a_failed_request(installation: Installation) -> None:
    with serving(installation, *QUICK) as server, load(server) as answers:
        assert version(server) == "1"
        installation.push_another(seed=1)
        eventually(lambda: version(server) == "2")
        assert server.metric('elcrec_swaps_total{outcome="swapped"}') == 1

    versions = [reply.json["model"]["version"] for reply in answers]
    assert {reply.status for reply in answers} == {200}
    assert set(versions) == {"1", "2"}


def test_what_cannot_be_served_is_refused_and_the_old_version_stays(installation: Installation) -> None:
    with serving(installation, *QUICK) as server:
        installation.register(seed=3, damage=True)
        eventually(lambda: "version 2 is refused" in server.log())
        assert "changed: model.safetensors" in server.log()
        assert version(server) == "1"

        installation.register(seed=4, feature_service="elcrec_v9")
        eventually(lambda: "version 3 is refused" in server.log())
        assert "elcrec_v9" in server.log()
        assert version(server) == "1"

        installation.push_another(seed=5)
        eventually(lambda: version(server) == "4")


def test_a_server_continues_without_its_registry_and_follows_it_again_later(
    installation: Installation,
) -> None:
    with serving(installation, *QUICK) as server:
        with sqlite3.connect(installation.folder / "mlflow" / "mlflow.db", isolation_level=None) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            eventually(lambda: server.metric("elcrec_registry_errors_total") > 0)
            assert version(server) == "1"
            lock.execute("ROLLBACK")
        installation.push_another(seed=6)
        eventually(lambda: version(server) == "2")


def test_while_sqlite_cannot_be_read_answers_are_fallbacks_and_say_so(installation: Installation) -> None:
    with serving(installation, *QUICK) as server:
        assert not is_fallback(server)
        with sqlite3.connect(installation.folder / "feast" / "online.db", isolation_level=None) as database:
            database.execute("ALTER TABLE elcrec_user_history RENAME TO away")
            eventually(lambda: is_fallback(server))
            assert recommend(server)["history"]["source"] == "request"
            assert recommend(server, history=[])["source"] == "popular"
            assert server.get("/v2/health/ready").status == 200
            assert server.metric('elcrec_store_errors_total{operation="read"}') > 0
            database.execute("ALTER TABLE away RENAME TO elcrec_user_history")
        eventually(lambda: not is_fallback(server))


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_redis_down_and_back(tmp_path: Path, fault: str) -> None:
    redis = Redis(tmp_path / "redis")
    redis.start()
    try:
        installation = Installation.make(tmp_path, features=redis.features(tmp_path / "features"))
        with serving(installation, *QUICK, "event_timeout=2") as server:
            assert not is_fallback(server)
            with load(server) as answers:
                redis.kill() if fault == "killed" else redis.freeze()
                eventually(lambda: is_fallback(server))
                refused = server.post("/events", {"events": [{"user_id": "user-2", "item_id": "item-1"}]})
                redis.start() if fault == "killed" else redis.freeze(thaw=True)
                eventually(lambda: not is_fallback(server))
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert {reply.status for reply in answers} == {200}
            eventually(
                lambda: server.post("/events", {"events": [{"user_id": "user-2", "item_id": "item-1"}]}).status == 200
            )
    finally:
        redis.kill()


def test_sigterm_finishes_what_is_in_flight_and_exits_with_zero(installation: Installation) -> None:
    body = json.dumps(REQUEST).encode()
    head = f"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with serving(installation, *QUICK) as server:
        with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            connection.sendall(head + body[:10])
            eventually(lambda: server.get("/v2/health/live").status == 200)
            server.process.terminate()
            eventually(lambda: "Shutting down" in server.log())
            connection.sendall(body[10:])
            answer = connection.makefile("rb").read()
        assert server.process.wait(60) == 0

    assert answer.startswith(b"HTTP/1.1 200")


def test_a_store_without_a_champion_is_one_clear_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from elcrec.cli import main  # noqa: PLC0415 - the other tests start processes

    status = main(["serve", "--store", str(tmp_path / "store"), "--set", "serve.demo=false"])

    assert status == 2
    assert "no champion of model 'elcrec'; run `elcrec push` first" in capfd.readouterr().err
