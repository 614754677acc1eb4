"""Connections within limits, on real sockets around a small application."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from benchmarks.attacks import ATTACKS, Outcome, idle, run
from elcrec.config import LimitsConfig
from elcrec.serving.edge import Connection, connection_class

pytestmark = pytest.mark.slow

LIMITS = LimitsConfig(head_bytes=8192, headers=32, url_bytes=1000, connections=20, body_bytes=50_000)
SECONDS = 1.0


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Read the body (but of /nowhere), then answer; /slow thinks before it does."""
    assert scope["type"] == "http"
    if scope["path"] != "/nowhere":
        while (await receive()).get("more_body"):
            pass
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5 * SECONDS)
    content = b"x" * (1_000_000 if scope["path"] == "/large" else 2)
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(
        application, port=0, http=connection_class(LIMITS, SECONDS), loop="uvloop", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def sent(port: int, request: bytes) -> bytes:
    """Return all that the server has to say until it closes the connection."""
    with connected(port) as connection:
        connection.sendall(request)
        return connection.makefile("rb").read()


def healthy(outcome: Outcome) -> bool:
    assert outcome.asked > 3
    return not outcome.failed and not outcome.faults


@pytest.mark.parametrize(
    "name", ["endless header line", "endless URL", "endless headers", "endless trailers", "endless body to no route"]
)
def test_a_request_without_an_end_is_cut_off_while_others_are_answered(port: int, name: str) -> None:
    outcome = run(ATTACKS[name], port, seconds=1.5)

    assert healthy(outcome)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 1001 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 8193 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 33 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 9000, 431),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    ],
)
def test_what_is_too_long_or_no_http_is_refused_in_json(port: int, request_: bytes, status: int) -> None:
    answer = sent(port, request_)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"HTTP/1.1 {status} ".encode() in answer
    assert b"application/json" in head
    assert body.startswith(b'{"error": ')


def test_an_upgrade_is_not_made_and_the_request_is_answered(port: int) -> None:
    answer = sent(port, b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


def test_requests_within_the_limits_share_a_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(40):
        connection.request("POST", "/", b"x" * 40_000, {f"h{number}": "v" * 100 for number in range(20)})
        assert connection.getresponse().read() == b"xx"
    connection.close()


def test_a_body_in_chunks_is_no_head_however_large(port: int) -> None:
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"

    answer = sent(port, head + b"9c40\r\n" + b"x" * 40_000 + b"\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


def test_an_unread_request_body_may_arrive_after_the_answer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\ncontent-length: 5\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(b"later" + b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")


def test_more_connections_than_allowed_close_those_that_have_waited_longest(port: int) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(connected(port))
        first.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        busy = stack.enter_context(connected(port))
        busy.sendall(b"GET /slow HTTP/1.1\r\nconnection: close\r\n\r\n")
        others = [stack.enter_context(connected(port)) for _ in range(LIMITS.connections)]

        assert others[-1].sendall(b"GET / HTTP/1.1\r\n\r\n") is None
        assert others[-1].recv(1000).startswith(b"HTTP/1.1 200")
        assert first.recv(1000) == b""
        assert busy.makefile("rb").read().startswith(b"HTTP/1.1 200")


def test_health_is_answered_beside_more_idle_connections_than_the_server_holds(port: int) -> None:
    outcome = run(idle(3 * LIMITS.connections), port, seconds=1.5)

    assert healthy(outcome)
    assert set(outcome.statuses) == {200}


@pytest.mark.parametrize("begun", [b"", b"GET / HTT", b"POST /nowhere HTTP/1.1\r\ncontent-length: 9\r\n\r\nx"])
def test_a_stalled_client_is_disconnected(port: int, begun: bytes) -> None:
    started = time.monotonic()

    sent(port, begun)

    assert time.monotonic() - started < 10 * SECONDS


def test_a_client_that_does_not_read_its_answers_is_disconnected(port: int) -> None:
    with connected(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(b"GET /large HTTP/1.1\r\n\r\n" * 15)
        time.sleep(3 * SECONDS)
        received = 0
        with suppress(ConnectionError):
            while piece := connection.recv(1_000_000):
                received += len(piece)

    assert received < 15_000_000


def test_many_requests_ahead_of_their_answers_are_refused(port: int) -> None:
    answer = sent(port, b"GET /slow HTTP/1.1\r\n\r\n" * 50)

    assert answer == b""


@pytest.mark.parametrize(
    ("begun", "more", "callback"),
    [
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 9000, "on_header"),
        (b"", b"GET /slow HTTP/1.1\r\n\r\n" * 2500, "on_message_begin"),
    ],
)
def test_what_follows_a_refused_piece_is_not_looked_at(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes, more: bytes, callback: str
) -> None:
    calls, original = [], getattr(Connection, callback)

    def counted(self: Connection, *given: bytes) -> None:
        calls.append(1)
        original(self, *given)

    monkeypatch.setattr(Connection, callback, counted)
    sent(port, begun + more)

    assert 0 < len(calls) < 100
