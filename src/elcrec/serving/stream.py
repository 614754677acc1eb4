"""Events from a stream: each message is stored before it is marked as done, so that none is lost.

A message may be read again, after a crash or because the broker missed the mark. That changes nothing: events are
identified by their ids, or by user, item and time, and count once.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from threading import Event as Flag
from typing import Protocol

from elcrec.config import StreamConfig
from elcrec.errors import UserError
from elcrec.serving.messages import Refusal, read_message
from elcrec.serving.ports import Event
from elcrec.serving.stream_metrics import StreamMetrics

logger = logging.getLogger(__name__)

DEAD = ".dead"
"""Suffix of the name of the topic of dead letters."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message of the topic.

    Attributes:
        place: its position in the topic, for the broker and for operators.
        body: JSON, if the message is valid.
        received: when the broker took it.
    """

    place: str
    body: bytes
    received: datetime


class BrokerUnavailable(UserError):  # noqa: N818 - named like StoreUnavailable
    """The broker does not answer; the same call succeeds once it is back."""


class Topic(Protocol):
    """A topic, read by one consumer of a group. Every call may raise BrokerUnavailable, and may be repeated."""

    def read(self, most: int) -> list[Message]:
        """Return messages that the group has not done yet; wait a second for the first one."""

    def bury(self, message: Message, reason: str) -> None:
        """Copy a message to the dead letters; this does not mark it as done."""

    def done(self, messages: Sequence[Message]) -> None:
        """Mark messages as done, so that they are not read again."""

    def waiting(self) -> int:
        """Return how many messages are not done yet."""

    def rest(self, seconds: float) -> None:
        """Wait, and stay a member of the group."""

    def close(self) -> None:
        """Leave the group."""


class StreamConsumer:
    """Takes messages until it is stopped; it reads a batch only when the previous one is stored."""

    def __init__(
        self,
        config: StreamConfig,
        topic: Topic,
        store: Callable[[Sequence[Event]], Mapping[str, int]],
        metrics: StreamMetrics,
        stop: Flag,
    ) -> None:
        """Take the parts.

        Args:
            config: the section `stream`.
            topic: the topic to read.
            store: stores events and returns their outcome; raises UserError if it cannot.
            metrics: metrics of this process.
            stop: once set, no further batch is begun.
        """
        self._config, self._topic, self._store, self._metrics, self._stop = config, topic, store, metrics, stop
        self._problem: str | None = None

    def run(self) -> None:
        """Take messages until told to stop; messages that were read but not stored are left for the next consumer."""
        while not self._stop.is_set():
            messages: list[Message] = []
            self._attempt(partial(self._read, messages))
            if messages:
                self._take(messages)
        self._topic.close()

    def _read(self, into: list[Message]) -> None:
        self._metrics.waiting.set(self._topic.waiting())
        into += self._topic.read(self._config.batch)

    def _take(self, messages: Sequence[Message]) -> None:
        """Store a batch; try again until it is stored or the consumer is stopped."""
        events, faulty = _parsed(messages)
        buried = len(faulty)
        if self._insist(partial(self._push, events)) and self._insist(partial(self._finish, faulty, messages)):
            self._metrics.messages.labels("dead").inc(buried)
            self._metrics.messages.labels("handled").inc(len(messages) - buried)

    def _push(self, events: Sequence[Event]) -> None:
        if not events:
            return
        with self._metrics.batch_seconds.time():
            outcome = self._store(events)
        for name in ("accepted", "duplicates", "late"):
            self._metrics.events.labels(name).inc(outcome[name])

    def _finish(self, faulty: deque[tuple[Message, str]], messages: Sequence[Message]) -> None:
        while faulty:
            self._topic.bury(*faulty[0])
            faulty.popleft()
        self._topic.done(messages)

    def _insist(self, work: Callable[[], None]) -> bool:
        """Repeat an action until it succeeds or the consumer is stopped; return whether it succeeded."""
        while not self._attempt(work):
            if self._stop.is_set():
                return False
        return True

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Try an action once, and rest if it fails; return whether it succeeded."""
        try:
            work()
        except UserError as error:
            self._metrics.retries.inc()
            if str(error) != self._problem:
                logger.warning("%s", error)
            self._problem = str(error)
            self._topic.rest(self._config.retry)
            return False
        if self._problem is not None:
            logger.info("it goes on")
        self._problem = None
        return True


def _parsed(messages: Sequence[Message]) -> tuple[list[Event], deque[tuple[Message, str]]]:
    """Return the events of messages, grouped by user, and the invalid messages with reasons."""
    events: list[Event] = []
    faulty: deque[tuple[Message, str]] = deque()
    for message in messages:
        try:
            events += read_message(message.body, message.received)
        except Refusal as refusal:
            faulty.append((message, refusal.message))
            logger.warning("a message is no event", extra={"fields": {"place": message.place}})
    events.sort(key=lambda event: event.user_id)
    return events, faulty
