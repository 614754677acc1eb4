"""`python -m benchmarks.attacks --port N --pid P`: attacks of an unknown client on a server, only on 127.0.0.1.

Each attack runs for a number of seconds while another thread requests the server's health, each time on a new
connection. Every loop is limited in time, so an attack ends whatever the server does.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import say

_HOST = "127.0.0.1"
_CHUNK = b"a" * 65_536
_PAUSE = 0.05
_HELD_BODIES = 300
_BODY = 1_000_000
_UNKNOWN_USERS = 1000
_SERVER_ERROR, _OVERLOADED = 500, 503


@dataclass
class Outcome:
    """Observations during an attack.

    Attributes:
        asked: number of requests for health and metrics.
        slowest: seconds of the slowest answer to them.
        failed: number of them that were not answered with 200 within a second.
        statuses: number of answers to the attackers by status.
        memory: peak of the server's resident memory relative to that before, 1 for no change; 0 if unknown.
    """

    asked: int = 0
    slowest: float = 0.0
    failed: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    memory: float = 0.0

    @property
    def faults(self) -> int:
        """Number of answers that are faults of the server: 5xx except 503."""
        return sum(n for status, n in self.statuses.items() if status >= _SERVER_ERROR and status != _OVERLOADED)


Attack = Callable[[int, float, Counter[int]], None]
"""An attack, given the port, the time to end (time.monotonic) and the counter of statuses."""


def run(attack: Attack, port: int, *, seconds: float, pid: int | None = None) -> Outcome:
    """Attack for the given seconds, and request health at the same time."""
    outcome, end = Outcome(), time.monotonic() + seconds
    before = peak = _memory(pid)
    # A separate process: with threads of this one we would wait for the attackers, which is not the server's fault.
    context = multiprocessing.get_context("fork")
    seen: multiprocessing.SimpleQueue[Counter[int]] = context.SimpleQueue()
    attacker = context.Process(target=_attack, args=(attack, port, end, seen), daemon=True)
    attacker.start()
    while time.monotonic() < end:
        _ask(port, outcome)
        peak = max(peak, _memory(pid))
        time.sleep(_PAUSE)
    outcome.statuses = seen.get()
    attacker.join()
    outcome.memory = peak / before if before else 0.0
    return outcome


def _attack(attack: Attack, port: int, end: float, seen: "multiprocessing.SimpleQueue[Counter[int]]") -> None:
    statuses: Counter[int] = Counter()
    os.nice(5)
    try:
        attack(port, end, statuses)
    finally:
        seen.put(statuses)


def _ask(port: int, outcome: Outcome) -> None:
    path = "/metrics" if outcome.asked % 10 == 0 else "/v2/health/ready"
    started, status = time.perf_counter(), 0
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        status = response.status
    connection.close()
    took = time.perf_counter() - started
    outcome.asked += 1
    outcome.slowest = max(outcome.slowest, took)
    outcome.failed += status != http.client.OK or took > 1


def _memory(pid: int | None) -> int:
    """Return the resident memory of a process in KiB, 0 if there is no process."""
    if pid is None:
        return 0
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def endless(head: bytes, piece: bytes = _CHUNK) -> Attack:
    """Begin a request and never end it."""

    def attack(port: int, end: float, statuses: Counter[int]) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection((_HOST, port), 5) as connection:
                connection.sendall(head)
                while time.monotonic() < end:
                    connection.sendall(piece)
                    _count(connection, statuses, wait=0.0)

    return attack


def idle(number: int) -> Attack:
    """Hold idle connections open after an answer; replace those that are closed."""

    def attack(port: int, end: float, statuses: Counter[int]) -> None:
        held: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            while time.monotonic() < end:
                if len(held) >= number:
                    time.sleep(_PAUSE)
                    continue
                with contextlib.suppress(OSError):
                    connection = stack.enter_context(socket.create_connection((_HOST, port), 5))
                    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                    _count(connection, statuses, wait=5)
                    held.append(connection)

    return attack


def held_bodies(port: int, end: float, statuses: Counter[int]) -> None:
    """Send most of many large bodies, and then nothing more."""
    head = f"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {_BODY}\r\n\r\n".encode()
    while time.monotonic() < end:
        with contextlib.ExitStack() as stack:
            for _ in range(_HELD_BODIES):
                with contextlib.suppress(OSError):
                    connection = stack.enter_context(socket.create_connection((_HOST, port), 5))
                    connection.sendall(head + b" " * (_BODY - 1))
                    _count(connection, statuses, wait=0.0)
                if time.monotonic() > end:
                    return
            time.sleep(min(3.0, max(0.0, end - time.monotonic())))


def unread(port: int, end: float, statuses: Counter[int]) -> None:
    """Request pages on many connections and never read the answers."""
    del statuses
    request = b"GET /docs HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 200
    with contextlib.ExitStack() as stack:
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                connection = stack.enter_context(socket.create_connection((_HOST, port), 5))
                connection.settimeout(0.2)
                connection.sendall(request)
            time.sleep(_PAUSE / 5)


def fuzz(port: int, end: float, statuses: Counter[int]) -> None:
    """Send valid requests with bytes changed, removed or repeated, in heads and bodies."""
    chance = random.Random(0)
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), 5) as connection:
            for _ in range(5):
                connection.sendall(_damaged(chance))
                _count(connection, statuses, wait=0.02)


def unknown_users(port: int, end: float, statuses: Counter[int]) -> None:
    """Send events of unknown users, as many as a request may have."""
    number = 0
    while time.monotonic() < end:
        events = [{"user_id": f"unknown-{number}-{place}", "item_id": "x"} for place in range(_UNKNOWN_USERS)]
        number += 1
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(_HOST, port, timeout=30)
            connection.request("POST", "/events", json.dumps({"events": events}), {"content-type": "application/json"})
            statuses[connection.getresponse().status] += 1
            connection.close()


_HEAD = b"GET /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\n"
_CHUNKED = b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
ATTACKS: dict[str, Attack] = {
    "endless header line": endless(_HEAD + b"x: "),
    "endless URL": endless(b"GET /"),
    "endless headers": endless(_HEAD, b"a: b\r\n" * 10_000),
    "endless trailers": endless(_CHUNKED + b"1\r\n{\r\n0\r\n", b"a: b\r\n" * 10_000),
    "endless body to no route": endless(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"),
    "4,200 idle connections": idle(4200),
    "held bodies": held_bodies,
    "answers that are not read": unread,
    "fuzzed requests": fuzz,
    "unknown users": unknown_users,
}


def mixed(port: int, end: float, statuses: Counter[int]) -> None:
    """Run all attacks at the same time."""
    threads = [threading.Thread(target=attack, args=(port, end, statuses), daemon=True) for attack in ATTACKS.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()) + 30)


def _damaged(chance: random.Random) -> bytes:
    bodies = [
        {"user_id": "user-1", "k": 3},
        {"events": [{"user_id": "user-1", "item_id": "item-1"}]},
        {"inputs": [{"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["user-1"]}]},
    ]
    kind = chance.randrange(3)
    path = ("/recommend", "/events", "/v2/models/elcrec/infer")[kind]
    body = _mutated(json.dumps(bodies[kind]).encode(), chance)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n".encode()
    head += f"content-length: {len(body)}\r\n\r\n".encode()
    return (_mutated(head, chance) if chance.random() < 1 / 3 else head) + body


def _mutated(text: bytes, chance: random.Random) -> bytes:
    changed = bytearray(text)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(changed))
        choice = chance.random()
        if choice < 1 / 3:
            changed[place] = chance.randrange(256)
        elif choice < 2 / 3:
            del changed[place : place + chance.randrange(8)]
        else:
            changed[place:place] = changed[: chance.randrange(len(changed))]
        changed = changed or bytearray(b" ")
    return bytes(changed)


def _count(connection: socket.socket, statuses: Counter[int], *, wait: float) -> None:
    """Read the received bytes; count them if they begin an answer.

    Raises:
        ConnectionError: the server has closed the connection.
    """
    connection.settimeout(wait)
    try:
        answer = connection.recv(65_536)
    except (TimeoutError, BlockingIOError):
        return
    finally:
        connection.settimeout(5)
    if not answer:
        raise ConnectionResetError
    if answer.startswith(b"HTTP/1.1 "):
        statuses[int(answer[9:12])] += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every attack, then all together; return the exit status."""
    return launch("benchmarks.attacks", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    attacks = [(name, attack, options.seconds) for name, attack in ATTACKS.items()]
    runs: dict[str, list[Result]] = {}
    for name, attack, seconds in [*attacks, ("all together", mixed, options.mixed)]:
        say(f"{name} …")
        found = run(attack, options.port, seconds=seconds, pid=options.pid)
        runs[name] = [_result(found, seconds)]
        section: Section = {"facts": described, "runs": runs}
        record(options.out, "attacks", section)
    say(f"wrote {options.out}")


def _result(found: Outcome, seconds: float) -> Result:
    return {
        "seconds": seconds,
        "asked": found.asked,
        "late": found.failed,
        "slowest": found.slowest,
        "memory": found.memory,
        "faults": found.faults,
        "statuses": {str(status): number for status, number in sorted(found.statuses.items())},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--port", type=positive, required=True, help="port of the server on 127.0.0.1")
    parser.add_argument("--pid", type=positive, required=True, help="process id of the server, to measure its memory")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each attack (default 10)")
    parser.add_argument("--mixed", type=float, default=600.0, help="seconds of all attacks together (default 600)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
