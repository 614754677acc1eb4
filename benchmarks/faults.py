"""`python -m benchmarks.faults`: malformed bodies, shuffled and repeated events, a new champion under load.

It counts faults of a server over Redis. Other faults (of Redis, the registry, a bundle, slow clients) have tests.
"""

import argparse
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import schemathesis
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file, save_file
from schemathesis import GenerationMode

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.load import Load
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, elcrec, say
from benchmarks.servers import add_inputs, core, push, pushed_store, server

_ROUTES = ("/recommend", "/events", "/v2/models/{name}/infer")
_EVENTS_A_USER, _REPEATED, _BATCH = 40, 0.3, 500
_CLICKS = 200
_SWAP_SECONDS = 90.0
_SERVER_ERROR, _OVERLOADED = 500, 503
_OK = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Push a model, serve it, inject faults; return the exit status."""
    return launch("benchmarks.faults", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    with tempfile.TemporaryDirectory() as folder:
        other = _another_model(Path(folder), options)
        with (
            pushed_store("redis", Path(folder) / "redis", options) as (store, environment),
            server(store, environment) as (process, port),
        ):
            bodies = _send_malformed(port, options.bodies)
            events, clicks = _send_events(port, options.events), _click(port)
            swap = _swap(port, lambda: push(store, *other, environment))
            alive = process.poll() is None
    section: Section = {
        "facts": described,
        "dataset": options.dataset,
        "bodies": bodies,
        "events": events,
        "clicks": clicks,
        "swap": swap,
        "alive": alive,
    }
    record(options.out, "faults", section)
    say(f"wrote {options.out}")


def _send_malformed(port: int, number: int) -> Result:
    """Send bodies that the server's own OpenAPI document forbids; count the answers by status."""
    say(f"{number} malformed bodies …")
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    statuses: Counter[int] = Counter()
    for place, route in enumerate(_ROUTES):
        cases = document[route]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE)
        statuses += _answers(cases, number * (place + 1) // len(_ROUTES) - number * place // len(_ROUTES))
    failed = sum(count for status, count in statuses.items() if status >= _SERVER_ERROR and status != _OVERLOADED)
    return {"sent": statuses.total(), "failed": failed, "statuses": {str(s): n for s, n in sorted(statuses.items())}}


def _answers(cases: Any, number: int) -> Counter[int]:
    """Send a number of cases; return the number of answers by status."""
    statuses: Counter[int] = Counter()

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def attack(case: schemathesis.Case[Any]) -> None:
        if statuses.total() < number:
            # The attack is on the body, which is not read for a model that does not exist.
            case.path_parameters = {"name": "elcrec"} if "{name}" in case.path else {}
            statuses[case.call().status_code] += 1

    while statuses.total() < number:
        attack()
    return statuses


def _send_events(port: int, number: int) -> Result:
    """Send events shuffled, some twice; count those that are then in the right places of their users' histories."""
    say(f"{number} events …")
    chance, start = random.Random(0), datetime.now(UTC) - timedelta(days=1)
    events = [
        {
            "user_id": f"new-user-{place // _EVENTS_A_USER}",
            "item_id": f"item-{place}",
            "timestamp": (start + timedelta(seconds=place)).isoformat(),
        }
        for place in range(number)
    ]
    sent = events + chance.sample(events, int(_REPEATED * number))
    chance.shuffle(sent)
    outcome: Counter[str] = Counter()
    started = time.perf_counter()
    for first in range(0, len(sent), _BATCH):
        outcome.update(_post(port, "/events", {"events": sent[first : first + _BATCH]}))
    seconds = time.perf_counter() - started
    expected: dict[str, list[str]] = {}
    for event in events:
        expected.setdefault(event["user_id"], []).append(event["item_id"])
    present = sum(
        sum(mine == theirs for mine, theirs in zip(_history(port, user), items, strict=False))
        for user, items in expected.items()
    )
    names = ("accepted", "duplicates", "late")
    return {
        "events": number,
        "sent": len(sent),
        "present": present,
        "seconds": seconds,
        **{name: outcome[name] for name in names},
    }


def _click(port: int) -> Result:
    """Send one event at a time and ask for the next recommendation at once."""
    seen, seconds = 0, []
    for click in range(_CLICKS):
        user, item = f"clicker-{click % 20}", f"clicked-{click}"
        started = time.perf_counter()
        _post(port, "/events", {"events": [{"user_id": user, "item_id": item}]})
        seen += _history(port, user)[-1:] == [item]
        seconds.append(time.perf_counter() - started)
    return {"clicks": _CLICKS, "seen": seen, "p50_ms": 1000 * median(seconds)}


def _swap(port: int, work: Any) -> Result:
    """Push another model while clients send requests as fast as they are answered."""
    say("a push under load …")
    before = _version(port)
    load = Load(port=port, users=["nobody"], seconds=_SWAP_SECONDS, rate=None, connections=8)
    generator = subprocess.Popen(
        [*core(-1), sys.executable, "-m", "benchmarks.load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert generator.stdin is not None
    generator.stdin.write(msgspec.json.encode(load))
    generator.stdin.close()
    generator.stdin = None
    work()
    answers, _ = generator.communicate()
    result = msgspec.json.decode(answers, type=Result)
    return {"requests": result["requests"], "failed": result["failed"], "before": before, "after": _version(port)}


def _another_model(folder: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Copy the model with other weights, and evaluate it; a bundle of the same weights would be the same version."""
    model, evaluation = Path(shutil.copytree(options.model, folder / "model")), folder / "evaluation"
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * 1.001 for name, tensor in weights.items()}, model / "model.safetensors")
    inputs = (f"--model={model}", f"--sequences={options.sequences}", "--baseline=none", "--truth=none")
    elcrec("evaluate", *inputs, f"--out={evaluation}")
    return model, options.sequences, evaluation


def _history(port: int, user: str) -> list[str]:
    answer = _post(port, "/recommend", {"user_id": user, "k": 1, "with_history": True})
    history: list[str] = answer["history"]["item_ids"]
    return history


def _version(port: int) -> str:
    return str(_post(port, "/recommend", {"history": [], "k": 1})["model"]["version"])


def _post(port: int, path: str, content: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(content), {"content-type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != _OK:
        raise RuntimeError(f"{path}: {response.status} {body.decode()}")
    return json.loads(body)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    add_inputs(parser)
    parser.add_argument("--bodies", type=positive, default=10_000, help="malformed ones (default 10000)")
    parser.add_argument("--events", type=positive, default=10_000, help="(default 10000)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
