"""`python -m benchmarks.rollback`: seconds from a rollback until the version answers, under load, and failures."""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.page import record
from benchmarks.runner import ROOT, say
from benchmarks.servers import core, push, server
from tests.support.push_inputs import add_model, make_inputs

_CONNECTIONS, _PAUSE = 4, 0.02
_BEFORE, _AFTER, _PATIENCE = 2.0, 2.0, 120.0
"""Seconds of load before a command and after only its version answers, and the limit of waiting for that."""


class Seen(NamedTuple):
    """An answer: its time, its status and its version."""

    moment: float
    status: int
    version: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Roll back and forth; write the section; return the exit status."""
    return launch("benchmarks.rollback", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, environment = Path(name), {"ELCREC_FEATURES": str(ROOT / "features"), "OMP_NUM_THREADS": "1"}
        first = make_inputs(folder / "inputs", users=options.users, items=options.items)
        for inputs in (first, add_model(folder / "inputs", first.sequences, model_seed=1)):
            push(folder / "store", inputs.model, inputs.sequences, inputs.evaluation, environment)
        with server(folder / "store", environment) as (_, port):
            rounds = [
                _round(folder / "store", port, environment, "12"[number % 2], options.users)
                for number in range(options.rounds)
            ]
    section = {
        "connections": _CONNECTIONS,
        "users": options.users,
        "items": options.items,
        "rounds": rounds,
        "facts": describe(bare_job(), command)[0],
    }
    record(options.out, "rollback", section)


def _round(store: Path, port: int, environment: Mapping[str, str], version: str, users: int) -> dict[str, float]:
    """Roll back to a named version under load; return the seconds."""
    with _load(port, users) as seen:
        time.sleep(_BEFORE)
        begun = time.monotonic()
        command = [*core(-1), sys.executable, "-m", "elcrec", "rollback", "--store", str(store), version]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True)
        ended = time.monotonic()
        while not any(one.version == version and one.moment > begun for one in seen):
            if time.monotonic() > begun + _PATIENCE:
                raise RuntimeError(f"version {version} does not answer")
            time.sleep(_PAUSE)
        time.sleep(_AFTER)
    later = [one for one in list(seen) if one.moment > begun]
    first = min(one.moment for one in later if one.version == version)
    last = max((one.moment for one in later if one.version != version), default=begun)
    failed = sum(one.status != http.HTTPStatus.OK for one in seen)
    say(
        f"version {version}: command {ended - begun:.2f} s, first {first - begun:.2f} s, failed {failed} of {len(seen)}"
    )
    numbers = {"command": ended - begun, "first": first - begun, "last": last - begun}
    return {**numbers, "requests": len(seen), "failed": failed}


@contextmanager
def _load(port: int, users: int) -> Iterator[list[Seen]]:
    """Send requests from several connections; yield the growing list of answers."""
    seen, over = list[Seen](), threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(port, seen, over, place, users), daemon=True)
        for place in range(_CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(port: int, seen: list[Seen], over: threading.Event, place: int, users: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    number = place
    while not over.wait(_PAUSE):
        number += _CONNECTIONS
        body = msgspec.json.encode({"user_id": f"user-{number % users}", "k": 10})
        try:
            connection.request("POST", "/recommend", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = msgspec.json.decode(answer.read())
            version = content.get("model", {}).get("version", "")
            seen.append(Seen(time.monotonic(), answer.status, version))
        except (OSError, http.client.HTTPException):
            seen.append(Seen(time.monotonic(), 0, ""))
            connection.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollback", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=10, help="rollbacks (default 10)")
    parser.add_argument("--users", type=positive, default=5000, help="of the store (default 5000)")
    parser.add_argument("--items", type=positive, default=12_000, help="of the models (default 12000)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
