"""Exposures as CloudEvents to an HTTP address, in batches, from a separate thread so that no request waits.

CloudEvents 1.0, HTTP binding, batched content mode. A batch that was not accepted is posted again, so an event may
arrive twice; its id is that of the answer.
"""

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote, urlsplit

import msgspec

from elcrec.config import ExposureLogConfig
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

CONTENT_TYPE, EVENT_TYPE = "application/cloudevents-batch+json", "org.elcrec.exposure.v1"
_FLUSH_SECONDS = 0.25
_AT_ONCE = 200
"""Largest number of answers in a batch."""
_BACK_OFF = (0.25, 0.5, 1.0, 2.0)
"""Seconds before each further attempt to post a batch."""
_BUSY = frozenset({408, 425, 429})
"""Client errors that may be temporary, as all server errors may be."""


class _Head(msgspec.Struct):
    """The attributes of an exposure's event, outside its data."""

    answer_id: str
    time: int
    model: str
    version: str


_head, _encode = msgspec.json.Decoder(_Head).decode, msgspec.json.Encoder().encode


class ExposureSink:
    """Takes exposures as lines of JSON and posts them; those that it cannot deliver are counted and dropped."""

    def __init__(self, config: ExposureLogConfig, address: str, telemetry: Telemetry) -> None:
        """Take the parts.

        Args:
            config: the section `serve.exposures`.
            address: `config.sink`.
            telemetry: the server's metrics.
        """
        parts = urlsplit(address)
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._config, self._counted = config, telemetry.sent_exposures
        self._waiting: deque[bytes] = deque()
        self._posting, self._given_up = 0, False
        self._accounts = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._over, self._until = threading.Event(), float("inf")
        self._thread = threading.Thread(target=self._run, name="exposure-sink", daemon=True)
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def add(self, line: bytes) -> None:
        """Take an exposure; returns at once."""
        if len(self._waiting) >= self._config.queue:
            self._counted.labels("dropped").inc()
        else:
            self._waiting.append(line)

    def close(self) -> None:
        """Post what is left within `sink_timeout`; count the rest as failed."""
        self._until = time.monotonic() + self._config.sink_timeout
        self._over.set()
        self._thread.join(self._config.sink_timeout)
        with self._accounts:
            self._given_up, left = True, len(self._waiting) + self._posting
        if left:
            self._counted.labels("failed").inc(left)
            logger.warning("exposures were not posted before the end", extra={"fields": {"rows": left}})

    def _run(self) -> None:
        while not self._over.wait(_FLUSH_SECONDS):
            self._flush()
        self._flush()
        self._disconnect()

    def _flush(self) -> None:
        while lines := self._take():
            self._deliver(lines)

    def _take(self) -> list[bytes]:
        """Take the next batch; none after the end."""
        with self._accounts:
            if self._given_up or time.monotonic() >= self._until:
                return []
            self._posting = min(_AT_ONCE, len(self._waiting))
            return [self._waiting.popleft() for _ in range(self._posting)]

    def _deliver(self, lines: Sequence[bytes]) -> None:
        """Post a batch until it is accepted, refused for good, or out of attempts."""
        body = as_batch(lines)
        for seconds in (*_BACK_OFF, None):
            problem, passing = self._post(body)
            self.problem = None if problem is None else f"exposures are not posted: {problem}"
            if problem is None:
                self._count("sent")
                return
            if not passing or seconds is None or time.monotonic() >= self._until:
                break
            self._over.wait(seconds)
        self._count("failed")
        logger.warning("exposures were not posted", extra={"fields": {"kind": problem, "rows": len(lines)}})

    def _count(self, outcome: str) -> None:
        """Count the outcome of the batch, unless `close` has counted it."""
        with self._accounts:
            if not self._given_up:
                self._counted.labels(outcome).inc(self._posting)
            self._posting = 0

    def _post(self, body: bytes) -> tuple[str | None, bool]:
        """Post a batch; return the problem (`None` if it was accepted), and whether it may be temporary."""
        try:
            connection = self._connection = self._connection or self._connect()
            connection.request("POST", self._target, body, {"Content-Type": CONTENT_TYPE})
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException) as error:
            self._disconnect()
            return type(error).__name__, True
        taken = 200 <= response.status < 300  # noqa: PLR2004 - the range of success in HTTP
        passing = response.status >= 500 or response.status in _BUSY  # noqa: PLR2004 - the range of server errors in HTTP
        return None if taken else f"status {response.status}", passing

    def _connect(self) -> HTTPConnection:
        seconds = self._config.sink_timeout
        if self._secure:
            return HTTPSConnection(self._host, self._port, timeout=seconds, context=ssl.create_default_context())
        return HTTPConnection(self._host, self._port, timeout=seconds)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def as_batch(lines: Sequence[bytes]) -> bytes:
    """Return exposures, one line of JSON each, as a batch of CloudEvents with the unchanged lines as data."""
    return _encode([_event(_head(line), line) for line in lines])


def _event(head: _Head, line: bytes) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": f"/models/{quote(head.model, safe='')}/versions/{quote(head.version, safe='')}",
        "id": head.answer_id,
        "time": datetime.fromtimestamp(head.time / 1_000_000, UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": msgspec.Raw(line),
    }
