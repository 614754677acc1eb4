"""A Redis stream as a topic, with consumer groups: messages stay pending until they are acknowledged."""

import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import redis

from elcrec.config import StreamConfig
from elcrec.serving.stream import DEAD, BrokerUnavailable, Message

logger = logging.getLogger(__name__)

FIELD = "event"
"""The field of an entry that holds the JSON."""
_BLOCK_MS, _TIMEOUT_SECONDS = 1000, 5
_MOST_DEAD = 100_000
_BODY = FIELD.encode()

Entry = tuple[bytes, dict[bytes, bytes] | None]


class RedisTopic:
    """A `Topic`. A consumer is named after its host and process, so that a restarted container keeps its name."""

    def __init__(self, config: StreamConfig, address: str) -> None:
        """Take the section `stream`, and the address as `redis://[:password@]host:port/db`."""
        self._key, self._group, self._claim_ms = config.topic, config.group, int(config.claim_after * 1000)
        self._client: Any = redis.Redis.from_url(address, socket_timeout=_TIMEOUT_SECONDS, protocol=2)
        self._name = f"{platform.node()}-{os.getpid()}"
        self._own: str | None = "0-0"
        self._claim_at = 0.0
        self._has_group = False

    def read(self, most: int) -> list[Message]:
        """See `Topic`. Returns first messages pending for this name, then those left too long by others, then new ones.

        The messages of others are checked at half the interval after which they are taken over.
        """
        with self._errors():
            entries = self._left_by_itself(most) or self._left_by_others(most)
            if not entries:
                found = self._client.xreadgroup(self._group, self._name, {self._key: ">"}, count=most, block=_BLOCK_MS)
                entries = found[0][1] if found else []
        return [_message(entry) for entry in entries]

    def bury(self, message: Message, reason: str) -> None:
        """See `Topic`. The newest 100,000 dead letters are kept."""
        fields = {FIELD: message.body, "reason": reason, "place": message.place}
        with self._errors():
            self._client.xadd(self._key + DEAD, fields, maxlen=_MOST_DEAD, approximate=True)

    def done(self, messages: Sequence[Message]) -> None:
        """See `Topic`."""
        with self._errors():
            self._client.xack(self._key, self._group, *(message.place for message in messages))

    def waiting(self) -> int:
        """See `Topic`."""
        with self._errors():
            groups = self._client.xinfo_groups(self._key)
        own = next((group for group in groups if group["name"] == self._group.encode()), None)
        # If the group was deleted, the next failure to read creates it again.
        return 0 if own is None else int(own["pending"]) + int(own["lag"] or 0)

    def rest(self, seconds: float) -> None:
        """See `Topic`."""
        time.sleep(seconds)

    def close(self) -> None:
        """See `Topic`. A consumer without pending messages is deleted."""
        try:
            if not self._client.xpending_range(self._key, self._group, "-", "+", 1, self._name):
                self._client.xgroup_delconsumer(self._key, self._group, self._name)
        except redis.RedisError as error:
            logger.warning("the group keeps this consumer: %s", type(error).__name__)
        self._client.close()

    def _left_by_itself(self, most: int) -> list[Entry]:
        if self._own is None:
            return []
        ((_, entries),) = self._client.xreadgroup(self._group, self._name, {self._key: self._own}, count=most)
        self._own = entries[-1][0] if entries else None
        return list(entries)

    def _left_by_others(self, most: int) -> list[Entry]:
        if time.monotonic() < self._claim_at:
            return []
        _, entries, _ = self._client.xautoclaim(self._key, self._group, self._name, self._claim_ms, count=most)
        if not entries:
            self._claim_at = time.monotonic() + self._claim_ms / 2000
        return list(entries)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn exceptions of redis-py into an error of one line; a missing group is created for the next attempt."""
        try:
            if not self._has_group:
                self._make_group()
            yield
        except redis.RedisError as error:
            self._own, self._has_group = "0-0", False
            raise BrokerUnavailable(f"the stream does not answer ({error})", fix="check ELCREC_STREAM") from error

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(self._key, self._group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True


def _message(entry: Entry) -> Message:
    place, fields = entry
    received = datetime.fromtimestamp(int(place.partition(b"-")[0]) / 1000, UTC)
    # An entry without the field becomes a dead letter, as it is not JSON; a deleted entry has no fields at all.
    return Message(place=place.decode(), body=(fields or {}).get(_BODY, b""), received=received)
