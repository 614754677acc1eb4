"""A real server process over a real store, and clients for it."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import pytest
import redis
import yaml

from elcrec.adapters.feast_store import FeastStore
from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.config import GateConfig, PushConfig
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle
from elcrec.stages.push import push
from tests.support.push_inputs import Inputs, add_model, make_inputs

ROOT = Path(__file__).parents[2]
NAME = "elcrec"
_START_SECONDS = 120
_CONFIG = PushConfig(gate=GateConfig(max_regression=1.0))


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A store with a champion, and the inputs of its push."""

    folder: Path
    inputs: Inputs
    features: Path
    sign: Callable[[Path], None] | None = None

    @classmethod
    def make(
        cls,
        root: Path,
        *,
        features: Path = ROOT / "features",
        items: int = 15,
        time: str = "order",
        split: Mapping[str, Any] | None = None,
        sign: Callable[[Path], None] | None = None,
    ) -> Self:
        """`split` is what the log decided besides."""
        inputs = make_inputs(root / "inputs", items=items, time=time, split=split or {})
        made = cls(folder=root / "store", inputs=inputs, features=features, sign=sign)
        made.push(made.inputs)
        return made

    @property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.folder / "mlflow")

    @property
    def store(self) -> FeastStore:
        return FeastStore(self.folder, self.features)

    def push(self, inputs: Inputs, alias: Literal["champion", "challenger"] = "champion") -> dict[str, Any]:
        out, config = self.folder.parent / "push", msgspec.structs.replace(_CONFIG, alias=alias)
        outcome = push(config, *inputs.paths, out, registry=self.registry, features=self.store, sign=self.sign)
        assert outcome["accepted"], outcome
        return outcome

    def push_another(self, *, seed: int, alias: Literal["champion", "challenger"] = "champion") -> dict[str, Any]:
        return self.push(add_model(self.inputs.sequences.parent, self.inputs.sequences, model_seed=seed), alias)

    def register(self, *, seed: int, feature_service: str = "elcrec_v1", damage: bool = False) -> str:
        """Make a version without the care of a push, and move the alias to it."""
        inputs = add_model(self.inputs.sequences.parent, self.inputs.sequences, model_seed=seed)
        source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
        bundle = self.folder.parent / f"bundle-{seed}"
        schema = self.store.schema("elcrec_v1")
        manifest = describe_bundle(source, name=NAME, feature_service=feature_service, feature_schema=schema)
        write_bundle(source, manifest, bundle)
        version = self.registry.register(NAME, bundle, {}, {})
        if damage:
            registered = self.registry.version(NAME, version)
            assert registered is not None
            weights = registered.bundle / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        self.registry.set_champion(NAME, version)
        return version


class Server:
    """A running `elcrec serve`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process, self._log = process, log
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_until_ready(self) -> None:
        mark = "Uvicorn running on http://127.0.0.1:"
        deadline = time.monotonic() + _START_SECONDS
        while mark not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        self.port = int(self.log().split(mark)[1].split()[0])

    def client(self) -> "Client":
        return Client(self.port)

    def get(self, path: str) -> "Reply":
        with self.client() as client:
            return client.request("GET", path)

    def post(self, path: str, content: object) -> "Reply":
        with self.client() as client:
            return client.post(path, content)

    def metric(self, line: str) -> float:
        """Return the value of one line of /metrics, 0 where there is none."""
        page = self.get("/metrics").body.decode().splitlines()
        return next((float(each.rsplit(" ", 1)[1]) for each in page if each.startswith(f"{line} ")), 0.0)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A persistent connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: object = None, headers: Mapping[str, str] = {}) -> Reply:
        self._connection.request(method, path, body, dict(headers))
        response = self._connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())

    def post(self, path: str, content: object) -> Reply:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.request("POST", path, body, {"content-type": "application/json"})


@contextmanager
def serving(installation: Installation, *overrides: str) -> Iterator[Server]:
    """Run a server on a free port; it is killed at the end if the test has not stopped it."""
    log = installation.folder.parent / "server.log"
    command = [sys.executable, "-m", "elcrec", "serve", "--store", str(installation.folder), "--port", "0"]
    command += ["--params", str(ROOT / "params.yaml"), *(f"--set=serve.{override}" for override in overrides)]
    environment = {**os.environ, "ELCREC_FEATURES": str(installation.features), "OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, text=True)
    server = Server(process, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        process.kill()
        process.wait()


def eventually(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


class Redis:
    """A Redis that can be killed and started again with its data."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server on this machine")
        folder.mkdir(parents=True)
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--dir", str(self._folder), "--appendonly", "yes"]
        command += ["--appendfsync", "always", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def erased(self, text: str) -> bool:
        """Wait for a rewrite of the append-only file that is under way; say whether no file holds a text any more."""
        eventually(lambda: not self.client.info("persistence")["aof_rewrite_in_progress"])
        return not any(text.encode() in path.read_bytes() for path in self._folder.rglob("*") if path.is_file())

    def freeze(self, *, thaw: bool = False) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT if thaw else signal.SIGSTOP)

    def features(self, folder: Path) -> Path:
        """Return a copy of the Feast repository whose online store this is."""
        repository = Path(shutil.copytree(ROOT / "features", folder))
        path = repository / "feature_store.yaml"
        document = yaml.safe_load(path.read_text())
        address = f"127.0.0.1:{self.port},socket_timeout=0.2,socket_connect_timeout=0.2,retry=null"
        document["online_store"] = {"type": "redis", "connection_string": address}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return repository

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
