"""The scenarios of kills: a run of all stages, events from a file, and a server that receives events."""

import contextlib
import http.client
import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec

from benchmarks.kill_outcome import Outcome, outcome_of
from benchmarks.killing import Child, End, Kill
from benchmarks.mutations import CONFIG as SMALL
from benchmarks.servers import free_port
from elcrec.adapters.store import Store, open_store
from elcrec.config import Config, GateConfig, ServeConfig
from elcrec.run import run
from elcrec.serving.server import serve
from elcrec.stages import evaluate, train
from elcrec.stages.events import push_events

_GATE = GateConfig(floors={"ndcg@20": 0.0}, max_regression=1.0)
CONFIG = msgspec.structs.replace(
    SMALL,
    train=msgspec.structs.replace(SMALL.train, epochs=3),
    push=msgspec.structs.replace(SMALL.push, gate=_GATE),
)
_EVENTS, _BATCH = 120, 6
_FIRST_EVENT = datetime(2026, 6, 1, tzinfo=UTC)
_OK, _START_SECONDS, _PAUSE = 200, 60, 0.02
_GRACE_SECONDS = 5.0
"""Seconds after which a server whose connections break is no longer assumed to be dying."""


class Scenario(Protocol):
    """A kind of work that is killed and repeated, each point in its own folder."""

    def prepare(self, folder: Path) -> None:
        """Create the initial state."""

    def attempt(self, folder: Path, kill: Kill | None = None) -> End:
        """Do the work, or the rest of it, until it is done or killed."""

    def outcome(self, folder: Path) -> Outcome:
        """Return the outcome."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """`elcrec run`: every stage of a small sample log, and the push.

    Attributes:
        config: the configuration of the run.
        registry: an initial registry without models; `None` starts without a registry and also writes full pages, which
            takes some seconds longer.
    """

    config: Config = CONFIG
    registry: Path | None = None

    def prepare(self, folder: Path) -> None:
        """See `Scenario`."""
        store = folder / "work" / "store"
        store.mkdir(parents=True)
        if self.registry is not None:
            shutil.copytree(self.registry, store / "mlflow")

    def attempt(self, folder: Path, kill: Kill | None = None) -> End:
        """See `Scenario`."""
        return Child(lambda: self._run(folder / "work"), folder / "log", kill).end()

    def outcome(self, folder: Path) -> Outcome:
        """See `Scenario`."""
        return outcome_of(folder / "work")

    def _run(self, workdir: Path) -> None:
        if self.registry is not None:
            without_pages()
        for line in run(self.config, workdir):
            sys.stdout.write(f"{line}\n")


@dataclass(frozen=True, kw_only=True)
class Events:
    """`elcrec events FILE`.

    Attributes:
        store: a store with a champion, which is copied.
    """

    store: Path

    def prepare(self, folder: Path) -> None:
        """See `Scenario`."""
        shutil.copytree(self.store, folder / "work" / "store")

    def attempt(self, folder: Path, kill: Kill | None = None) -> End:
        """See `Scenario`."""
        return Child(lambda: self._push(folder / "work" / "store"), folder / "log", kill).end()

    def outcome(self, folder: Path) -> Outcome:
        """See `Scenario`."""
        return outcome_of(folder / "work")

    def _push(self, folder: Path) -> None:
        lines = [json.dumps(event) for event in _events()]
        push_events(lines, name="events", features=open_store(folder).features)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server, and a client that sends each batch of events again until it is acknowledged.

    An acknowledged batch is never sent again, so a batch lost by a kill stays lost.

    Attributes:
        store: a store with a champion, which is copied.
    """

    store: Path

    def prepare(self, folder: Path) -> None:
        """See `Scenario`."""
        shutil.copytree(self.store, folder / "work" / "store")
        (folder / "acknowledged").write_text("0", encoding="ascii")

    def attempt(self, folder: Path, kill: Kill | None = None) -> End:
        """See `Scenario`."""
        port, store = free_port(), open_store(folder / "work" / "store")
        child = Child(lambda: _serve(store, port), folder / "log", kill)
        try:
            _wait_for_port(port, child)
            self._send(folder / "acknowledged", port)
            self._ask(folder / "answers.json", port)
        except (OSError, http.client.HTTPException) as error:
            if child.lives(_GRACE_SECONDS):
                child.stop()
                return replace(child.end(), fault=f"the client met {error!r}")
        else:
            child.stop()
        return child.end()

    def outcome(self, folder: Path) -> Outcome:
        """See `Scenario`."""
        return outcome_of(folder / "work") | {"answers": (folder / "answers.json").read_text(encoding="utf-8")}

    def _send(self, acknowledged: Path, port: int) -> None:
        events = _events()
        for first in range(int(acknowledged.read_text(encoding="ascii")), len(events), _BATCH):
            _post(port, "/events", {"events": events[first : first + _BATCH]})
            acknowledged.write_text(str(first + _BATCH), encoding="ascii")

    def _ask(self, answers: Path, port: int) -> None:
        users = sorted({event["user_id"] for event in _events()})
        asked = [{"user_id": user, "k": 5, "with_history": True} for user in users]
        found = [{name: _post(port, "/recommend", each)[name] for name in ("items", "history")} for each in asked]
        answers.write_text(json.dumps(found), encoding="utf-8")


def _serve(store: Store, port: int) -> None:
    config = ServeConfig(port=port, demo=False, store_timeout=30.0, event_timeout=30.0)
    serve(config, CONFIG.push.model_name, registry=store.registry, features=store.features)


def without_pages() -> None:
    """Let this process write empty pages, because their charts take longer than the stages."""
    for module, name in ((train, "write_training_page"), (evaluate, "write_report"), (evaluate, "write_intents_page")):
        setattr(module, name, _write_nothing)


def _write_nothing(path: Path, *_: object, **__: object) -> None:
    path.write_text("", encoding="utf-8")


def scenarios(pipeline: Pipeline, store: Path) -> Mapping[str, Scenario]:
    """Return all scenarios by name."""
    return {
        "run": pipeline,
        "run, with pages and a new registry": replace(pipeline, registry=None),
        "events": Events(store=store),
        "serving": Serving(store=store),
    }


def _events() -> list[dict[str, str]]:
    """Return events of known and of new users, a minute apart."""
    return [
        {
            "user_id": f"u{number % 17:04}" if number % 3 else f"new{number % 5}",
            "item_id": f"i{number % 50:04}",
            "timestamp": (_FIRST_EVENT + timedelta(minutes=number)).isoformat(),
            "event_id": f"e{number}",
        }
        for number in range(_EVENTS)
    ]


def _wait_for_port(port: int, child: Child) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            _request(port, "GET", "/health", None)
            return
        if time.monotonic() > deadline or not child.lives():
            raise ConnectionError(f"nothing listens on port {port}")
        time.sleep(_PAUSE)


def _post(port: int, path: str, content: object) -> Any:
    status, body = _request(port, "POST", path, json.dumps(content))
    if status != _OK:
        raise ConnectionError(f"{path}: {status} {body.decode()}")
    return json.loads(body)


def _request(port: int, method: str, path: str, body: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
