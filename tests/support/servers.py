"""Real servers on a free port and in a temporary folder, for one test or a module of them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import redis

_PATIENCE_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class RedisServer:
    port: int = field(default_factory=free_port)
    password: str = "8051937264"  # digits: what a connection string must not turn into a number
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The address as Feast writes it, to which options can be added."""
        return f'127.0.0.1:{self.port},password="{self.password}"'

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password)

    def start(self) -> None:
        options = {"--port": self.port, "--requirepass": self.password, "--bind": "127.0.0.1"}
        quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
        command = ["redis-server", *(str(part) for pair in options.items() for part in pair), *quiet]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
        _await(self.client.ping, redis.ConnectionError)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine (apt install redis-server)")
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _postgres_programs() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "initdb").exists():
        pytest.skip("no PostgreSQL on this machine (apt install postgresql)")
    return folders[-1]


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of an empty database. PostgreSQL refuses to run as root, so root runs it as `postgres`."""
    programs = _postgres_programs()
    as_other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        if as_other:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        setup = [str(programs / "initdb"), "-D", str(data), "-U", "feast", "--auth=trust", "--no-sync"]
        subprocess.run([*as_other, *setup], check=True, capture_output=True, cwd=folder)
        options = ["-D", str(data), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([*as_other, str(programs / "postgres"), *options], stderr=log, cwd=folder)
        url = f"postgresql://feast@127.0.0.1:{port}/postgres"
        try:
            _await(lambda: psycopg.connect(url).close(), psycopg.OperationalError)
            yield url
        finally:
            # `runuser` hands no SIGINT on, so the server is asked by the id that it left in its folder.
            os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGINT)
            server.wait()


def _await(ask: Callable[[], object], refusal: type[Exception]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            ask()
        except refusal:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        else:
            return
