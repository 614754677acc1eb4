"""A Kafka topic: a consumer group whose offsets are committed when messages are done."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Record

from elcrec.config import StreamConfig
from elcrec.errors import UserError
from elcrec.serving.stream import DEAD, BrokerUnavailable, Message

logger = logging.getLogger(__name__)

_READ_SECONDS, _FLUSH_SECONDS = 1.0, 10.0
_OURS = {"bootstrap.servers", "group.id", "enable.auto.commit"}
"""Options that the section `stream` and its guarantees determine."""


class KafkaTopic:
    """A `Topic`. A message's place is `partition:offset`."""

    def __init__(self, config: StreamConfig, address: str) -> None:
        """Take the section `stream`, and the address as `kafka://host:port[,host:port…]`.

        Raises:
            UserError: the file of options cannot be read, or an option is unknown or wrong.
        """
        options = {} if config.client_options is None else _read_options(Path(config.client_options))
        options["bootstrap.servers"] = address.removeprefix("kafka://")
        self._topic, self._options = config.topic, options
        own = {"group.id": config.group, "enable.auto.commit": "false", "auto.offset.reset": "earliest"}
        try:
            self._consumer = Consumer({**own, **options})
        except KafkaException as error:
            raise UserError(f"Kafka refuses an option ({error})", fix="mend stream.client_options") from error
        self._consumer.subscribe([self._topic])

    @cached_property
    def _producer(self) -> Producer:
        """The producer, created for the first dead letter."""
        return Producer({**self._options, "enable.idempotence": "true"})

    def read(self, most: int) -> list[Message]:
        """See `Topic`."""
        with _errors():
            records = self._consumer.consume(most, _READ_SECONDS)
            for record in records:
                if (error := record.error()) is not None:
                    self._back_to(records)
                    raise KafkaException(error)
        return [_message(record) for record in records]

    def bury(self, message: Message, reason: str) -> None:
        """See `Topic`. Reason and place are headers."""
        failed: list[KafkaError] = []
        headers: list[tuple[str, str | bytes | None]] = [("reason", reason), ("place", message.place)]
        with _errors():
            self._producer.produce(
                self._topic + DEAD,
                message.body,
                headers=headers,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            if self._producer.flush(_FLUSH_SECONDS):
                self._producer.purge()
                raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001 - its public name
            if failed:
                raise KafkaException(failed[0])

    def done(self, messages: Sequence[Message]) -> None:
        """See `Topic`. If a commit fails, the next one covers its offsets, or the messages are read again."""
        last: dict[int, int] = {}
        for message in messages:
            partition, offset = (int(number) for number in message.place.split(":"))
            last[partition] = max(offset, last.get(partition, 0))
        offsets = [TopicPartition(self._topic, partition, offset + 1) for partition, offset in last.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            logger.warning("not committed: %s", error.args[0].str())

    def waiting(self) -> int:
        """See `Topic`. Counts the partitions of this consumer."""
        with _errors():
            places = self._consumer.committed(self._consumer.assignment(), timeout=_READ_SECONDS)
            ranges = [self._consumer.get_watermark_offsets(place, cached=True) for place in places]
        pairs = zip(places, ranges, strict=True)
        return sum(max(0, high - max(low, place.offset)) for place, (low, high) in pairs if high >= 0)

    def rest(self, seconds: float) -> None:
        """See `Topic`. Messages that arrive meanwhile are put back."""
        had = self._consumer.assignment()
        self._consumer.pause(had)
        record = self._consumer.poll(seconds)
        if record is not None and record.error() is None:
            self._back_to([record])
        self._consumer.resume([place for place in self._consumer.assignment() if place in had])

    def close(self) -> None:
        """See `Topic`."""
        self._consumer.close()

    def _back_to(self, records: Sequence[Record]) -> None:
        """Have records read again."""
        for record in reversed(records):
            if record.error() is None:
                place = TopicPartition(self._topic, record.partition() or 0, record.offset() or 0)
                self._consumer.seek(place)


def _message(record: Record) -> Message:
    _, milliseconds = record.timestamp()
    body = record.value() or b""
    return Message(
        place=f"{record.partition()}:{record.offset()}",
        body=body if isinstance(body, bytes) else body.encode(),
        received=datetime.fromtimestamp(milliseconds / 1000, UTC),
    )


def _read_options(path: Path) -> dict[str, str]:
    """Read `key=value` lines; # begins a comment.

    Raises:
        UserError: it cannot be read, a line is invalid, or the file must not set an option.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=path, fix="mend stream.client_options") from error
    options: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or name in _OURS:
            fix = "write key=value, and leave out options that the section stream sets"
            raise UserError(f"line {number} is not an option that this file can set", where=path, fix=fix)
        options[name] = value
    return options


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        what = f"the stream does not answer ({error.args[0].str()})"
        raise BrokerUnavailable(what, fix="check ELCREC_STREAM") from error
