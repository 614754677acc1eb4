"""The StatefulSet's own command, on its own configuration, with a real Redis."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from tests.support.kustomize import render

ROOT = Path(__file__).parents[3]
PASSWORD = "p0123456789abcdef"
ONCE = Retry(NoBackoff(), 0)

pytestmark = pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")


@pytest.fixture
def container() -> dict[str, Any]:
    (stateful,) = (d for d in render(ROOT / "deploy" / "redis") if d["kind"] == "StatefulSet")
    found: dict[str, Any] = stateful["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def script(container: dict[str, Any], root: Path, port: int, *changes: tuple[str, str]) -> str:
    """Return the container's command with its folders under `root`, and the configuration written there."""
    (config,) = (d for d in render(ROOT / "deploy" / "redis") if d["kind"] == "ConfigMap")
    text = config["data"]["redis.conf"]
    for old, new in (("dir /data", f"dir {root}"), ("port 6379", f"port {port}"), *changes):
        assert old in text
        text = text.replace(old, new)
    (root / "redis.conf").write_text(text, encoding="utf-8")
    command: str = container["command"][2]
    return command.replace("/tmp/", f"{root}/").replace("/etc/redis/", f"{root}/")


@contextmanager
def running(command: str, port: int) -> Iterator[Redis]:
    """Run the command until the block ends, which asks it to stop as the kubelet does."""
    environment = {**os.environ, "REDISCLI_AUTH": PASSWORD}
    process = subprocess.Popen(["sh", "-ec", command], env=environment, stdout=subprocess.DEVNULL)
    client = Redis(port=port, password=PASSWORD, retry=ONCE)
    try:
        deadline = time.monotonic() + 30
        while not _answers(client):
            assert process.poll() is None, "Redis ended"
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.05)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=30)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:  # not listening yet, or still loading
        return False


def test_a_password_is_required_and_data_survive_a_restart(
    container: dict[str, Any], tmp_path: Path, port: int
) -> None:
    command = script(container, tmp_path, port)
    with running(command, port) as client:
        client.set("history", "kept")
        with pytest.raises(AuthenticationError):
            Redis(port=port, retry=ONCE).get("history")
    assert (tmp_path / "password.conf").stat().st_mode & 0o077 == 0

    with running(command, port) as client:
        assert client.get("history") == b"kept"


def test_the_readiness_probe_distinguishes_a_ready_store_from_one_that_refuses(
    container: dict[str, Any], tmp_path: Path, port: int
) -> None:
    shell, flag, probe = container["readinessProbe"]["exec"]["command"]
    probe = probe.replace("redis-cli", f"redis-cli -p {port}")

    def status(password: str) -> int:
        environment = {**os.environ, "REDISCLI_AUTH": password}
        return subprocess.run([shell, flag, probe], env=environment, capture_output=True, check=False).returncode

    with running(script(container, tmp_path, port), port):
        assert status(PASSWORD) == 0
        assert status("wrong") != 0
    assert status(PASSWORD) != 0


def test_a_full_store_refuses_writes_and_keeps_what_it_has(
    container: dict[str, Any], tmp_path: Path, port: int
) -> None:
    with running(script(container, tmp_path, port, ("maxmemory 3gb", "maxmemory 4mb")), port) as client:
        client.set("first", "kept")
        with pytest.raises(OutOfMemoryError):
            client.mset({f"filler {number}": "x" * 100_000 for number in range(60)})

        assert client.get("first") == b"kept"


def test_an_empty_password_starts_nothing(container: dict[str, Any], tmp_path: Path, port: int) -> None:
    done = subprocess.run(
        ["sh", "-ec", script(container, tmp_path, port)],
        env={**os.environ, "REDISCLI_AUTH": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode != 0
    assert "requirepass" in done.stdout + done.stderr


def test_the_password_is_no_argument(container: dict[str, Any], tmp_path: Path, port: int) -> None:
    with running(script(container, tmp_path, port), port) as client:
        process = client.info("server")["process_id"]
        arguments = Path(f"/proc/{process}/cmdline").read_bytes()

    assert b"redis-server" in arguments
    assert PASSWORD.encode() not in arguments
