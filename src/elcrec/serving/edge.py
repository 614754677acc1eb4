"""Connections: uvicorn's HTTP protocol with limits on size, number and time.

llhttp and uvicorn collect a request line, a header or a trailer of any length, in time that grows with the square of
the length. So the bytes of a request's head are counted before they reach them.
"""

import asyncio
import json
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from elcrec.config import LimitsConfig

_BAD_REQUEST, _URL_TOO_LONG, _HEADERS_TOO_LARGE = 400, 414, 431
_PIPELINED = 16
"""Number of requests that a connection may send ahead of their answers; our own clients send none."""


class _OverError(Exception):
    """Stops the parser, which would otherwise read the rest of a refused request."""


class Connections:
    """All connections; those that wait for their client are kept in the order in which they began to wait."""

    def __init__(self, most: int) -> None:
        """Take the largest number of open connections."""
        self._most, self._open = most, 0
        self._waiting: dict[Connection, None] = {}

    def opened(self, connection: "Connection") -> None:
        """Add a new connection; if there are too many, close the one that has waited longest."""
        self._open += 1
        self.waits(connection)
        if self._open > self._most:
            longest = next(iter(self._waiting))
            self.works(longest)
            longest.hang_up()

    def waits(self, connection: "Connection") -> None:
        """Note that the connection waits for its client."""
        self._waiting.setdefault(connection)

    def works(self, connection: "Connection") -> None:
        """Note that the connection waits for the server."""
        self._waiting.pop(connection, None)

    def closed(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        self._open -= 1
        self.works(connection)


class Connection(HttpToolsProtocol):
    """A connection that is closed if its client sends too much, sends too slowly, or does not read its answers.

    A subclass sets the attributes that all connections of a server share.

    Attributes:
        limits: the limits on sizes.
        seconds: time limit for a head to arrive, for the rest of an unread body, and for an answer to be read.
        others: all connections.
    """

    limits: LimitsConfig
    seconds: float
    others: Connections
    _timer: asyncio.TimerHandle | None = None
    _over = False
    _collecting = True
    _head_bytes = 0
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._arm()
        self.others.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._end()
        self.others.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._collecting:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(_BAD_REQUEST, "not HTTP")
        except httptools.HttpParserUpgrade:
            # The request is answered like any other; the upgraded protocol that would follow is not supported.
            self.cycle.keep_alive = False
        if self._collecting and self._head_bytes > self.limits.head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        self._require_open()
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._unread_bytes = 0
        self._arm()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._refuse_head()
        self._require_open()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers or len(name) + len(value) > self.limits.head_bytes:
            self._refuse_head()
        self._require_open()

    def on_headers_complete(self) -> None:
        self._disarm()
        self._collecting = False
        if len(self.pipeline) >= _PIPELINED:
            self._refuse(_BAD_REQUEST, "too many requests ahead of their answers")
        self._require_open()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_chunk_header(self) -> None:
        # Trailers follow the last chunk, and are collected like headers.
        self._collecting, self._head_bytes = True, 0

    def on_body(self, body: bytes) -> None:
        self._collecting = False
        self._require_open()
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > self.limits.body_bytes:
                self.hang_up()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._collecting, self._head_bytes = True, 0
        self._require_open()
        if self.cycle.response_complete:
            self._disarm()
        else:
            self.others.works(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # An answer may come before the end of its request, for example if the route does not exist.
        if self._unanswered.popleft().more_body:
            self._arm()
        if not self._unanswered:
            self.others.waits(self)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm()

    def hang_up(self) -> None:
        """Close the connection at once, even during a request."""
        self._end()
        self.transport.abort()

    def _require_open(self) -> None:
        """Stop the parser if the connection reads no more."""
        if self._over:
            raise _OverError

    def _refuse_head(self) -> None:
        if len(self.url) > self.limits.url_bytes:
            self._refuse(_URL_TOO_LONG, f"the URL has more than {self.limits.url_bytes} bytes")
            return
        most = f"{self.limits.headers} headers or {self.limits.head_bytes} bytes before its body"
        self._refuse(_HEADERS_TOO_LARGE, f"the request has more than {most}")

    def _refuse(self, status: int, message: str) -> None:
        """Send an error, unless another answer is being sent, and close the connection."""
        if self._over:
            return
        if not self._unanswered:
            body = json.dumps({"error": message}).encode()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self._end()
        self.transport.close()

    def _end(self) -> None:
        """End all requests of this connection."""
        self._over = True
        self.pipeline.clear()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.seconds, self.hang_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_class(limits: LimitsConfig, seconds: float) -> type[Connection]:
    """Return the protocol class of a server with these limits; its connections share one `Connections`."""
    fields: dict[str, Any] = {
        "limits": limits,
        "seconds": seconds,
        "others": Connections(limits.connections),
    }
    return type("LimitedConnection", (Connection,), fields)
