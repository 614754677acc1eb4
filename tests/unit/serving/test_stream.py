"""Events from a stream, with a real Redis and Kafka's mock broker: none lost, repeated or hidden."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from confluent_kafka import Consumer, Producer

from elcrec.adapters.stream import open_topic
from elcrec.config import StreamConfig
from elcrec.errors import UserError
from elcrec.serving.ports import Event, StoreUnavailable
from elcrec.serving.stream import BrokerUnavailable, StreamConsumer, Topic
from elcrec.serving.stream_metrics import StreamMetrics
from tests.support.servers import redis_server
from tests.support.serving import eventually

CONFIG = StreamConfig(batch=3, retry=0.01, claim_after=0.001)


def _config(**changes: Any) -> StreamConfig:
    return msgspec.structs.replace(CONFIG, **changes)


class Broker(Protocol):
    """A producer of messages, which can also read dead letters."""

    config: StreamConfig
    address: str

    def send(self, *bodies: bytes) -> None: ...
    def dead(self) -> list[dict[str, bytes]]: ...


class RedisBroker:
    def __init__(self, client: Any, address: str, topic: str) -> None:
        self.client, self.address = client, address
        self.config = _config(topic=topic)

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.client.xadd(self.config.topic, {"event": body})

    def dead(self) -> list[dict[str, bytes]]:
        found = self.client.xrange(f"{self.config.topic}.dead")
        return [{name.decode(): value for name, value in fields.items()} for _, fields in found]


class KafkaBroker:
    def __init__(self, topic: str, options: Path) -> None:
        # The mock broker drops a consumer that has left only after its timeout.
        options.write_text("session.timeout.ms=6000\n")
        self.config = _config(topic=topic, kind="kafka", client_options=str(options))
        self._producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.address = "kafka://" + ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self._producer.produce(self.config.topic, body)
        assert self._producer.flush(10) == 0

    def dead(self) -> list[dict[str, bytes]]:
        options = {"bootstrap.servers": self.address.removeprefix("kafka://"), "group.id": "looks"}
        reader = Consumer({**options, "auto.offset.reset": "earliest"})
        reader.subscribe([f"{self.config.topic}.dead"])
        found = reader.consume(1, 10)
        reader.close()
        return [dict(record.headers() or []) | {"event": record.value()} for record in found]  # type: ignore[dict-item]


class Store:
    """What was stored, once by event id; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.events: dict[str, Event] = {}
        self.failures, self.calls = failures, list[int]()

    def __call__(self, events: Sequence[Event]) -> dict[str, int]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the online store does not answer")
        self.calls.append(len(events))
        new = {str(event.event_id): event for event in events if event.event_id not in self.events}
        self.events |= new
        return {"accepted": len(new), "duplicates": len(events) - len(new), "late": 0}


@pytest.fixture(scope="module")
def redis() -> Iterator[Any]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.slow)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    topic = re.sub(r"\W", "-", request.node.name)
    if request.param == "kafka":
        return KafkaBroker(topic, tmp_path / "client.properties")
    server = request.getfixturevalue("redis")
    return RedisBroker(server.client, server.url, topic)


def event(number: int, **more: Any) -> bytes:
    return json.dumps({"user_id": f"u{number % 3}", "item_id": f"i{number}", "event_id": f"e{number}", **more}).encode()


def topic_of(broker: Broker) -> Topic:
    return open_topic(broker.config, {"ELCREC_STREAM": broker.address})


def consumed(broker: Broker, store: Store, *, until: int) -> Counter[str]:
    """Let a consumer run until so many messages are handled or buried; return what it has counted."""
    stop, metrics = threading.Event(), StreamMetrics()
    before = counts(metrics)

    def handled() -> int:
        now = counts(metrics) - before
        return now["handled"] + now["dead"]

    consumer = StreamConsumer(broker.config, topic_of(broker), store, metrics, stop)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        eventually(lambda: handled() >= until, seconds=30)
    finally:
        stop.set()
        thread.join(30)
    assert handled() == until
    return counts(metrics) - before


def counts(metrics: StreamMetrics) -> Counter[str]:
    """Counters by outcome; Feast may have those of one process share their values, so only differences tell."""
    found = (sample for family in metrics.registry.collect() for sample in family.samples)
    counters = (sample for sample in found if sample.name.startswith("elcrec_stream") and "_total" in sample.name)
    return Counter({sample.labels.get("outcome", "retries"): int(sample.value) for sample in counters})


def test_messages_are_stored_in_batches_and_not_read_again(broker: Broker) -> None:
    broker.send(*(event(number) for number in range(7)))
    store = Store()

    counted = consumed(broker, store, until=7)
    broker.send(event(7))
    consumed(broker, store, until=1)

    assert set(store.events) == {f"e{number}" for number in range(8)}
    assert max(store.calls) <= CONFIG.batch
    assert sum(store.calls) == 8
    assert counted == {"handled": 7, "accepted": 7}


def test_a_failing_store_is_tried_again_and_no_further_message_is_read(broker: Broker) -> None:
    broker.send(*(event(number) for number in range(5)))
    store = Store(failures=3)

    counted = consumed(broker, store, until=5)

    assert set(store.events) == {f"e{number}" for number in range(5)}
    assert sum(store.calls) == 5
    assert counted["retries"] == 3


def test_an_invalid_message_goes_to_the_dead_letters_with_its_reason(broker: Broker) -> None:
    broker.send(event(0), b'{"user_id": "u1"}', event(1))
    store = Store()

    counted = consumed(broker, store, until=3)

    assert set(store.events) == {"e0", "e1"}
    assert counted["dead"] == 1
    (letter,) = broker.dead()
    assert letter["event"] == b'{"user_id": "u1"}'
    assert b"item_id" in letter["reason"]


def test_a_consumer_that_is_stopped_while_the_store_is_down_leaves_its_batch_to_the_next(broker: Broker) -> None:
    broker.send(event(0), event(1))
    down, stop = Store(failures=1_000_000), threading.Event()
    metrics = StreamMetrics()

    def fails(events: Sequence[Event]) -> dict[str, int]:
        stop.set()
        return down(events)

    StreamConsumer(broker.config, topic_of(broker), fails, metrics, stop).run()
    store = Store()
    consumed(broker, store, until=2)

    assert not down.events
    assert set(store.events) == {"e0", "e1"}


def test_a_message_not_marked_as_done_is_read_again_unchanged(broker: Broker) -> None:
    broker.send(json.dumps({"user_id": "u", "item_id": "i"}).encode())
    first = topic_of(broker)
    (read,) = _read(first)
    first.close()
    second = topic_of(broker)
    (again,) = _read(second)
    second.close()

    assert again == read


def _read(topic: Topic) -> list[Any]:
    for _ in range(30):
        if found := topic.read(10):
            return found
    raise AssertionError("nothing to read")


def test_a_message_may_hold_several_events(broker: Broker) -> None:
    broker.send(json.dumps({"events": [json.loads(event(0)), json.loads(event(1))]}).encode())
    store = Store()

    consumed(broker, store, until=1)

    assert set(store.events) == {"e0", "e1"}


def test_a_deleted_redis_stream_is_created_again(redis: Any) -> None:
    broker = RedisBroker(redis.client, redis.url, "deleted")
    topic = topic_of(broker)
    assert topic.read(1) == []
    redis.client.delete("deleted")

    with pytest.raises(BrokerUnavailable, match="check ELCREC_STREAM"):
        topic.read(1)
    broker.send(event(0))

    assert len(topic.read(1)) == 1
    topic.close()


def test_what_another_consumer_of_redis_died_with_is_taken_over(redis: Any) -> None:
    broker = RedisBroker(redis.client, redis.url, "orphans")
    broker.send(event(0))
    redis.client.xgroup_create("orphans", CONFIG.group, id="0")
    redis.client.xreadgroup(CONFIG.group, "dead", {"orphans": ">"})
    store = Store()

    consumed(broker, store, until=1)

    assert set(store.events) == {"e0"}
    assert redis.client.xpending("orphans", CONFIG.group)["pending"] == 0


def test_the_gauge_says_how_many_messages_wait(redis: Any) -> None:
    broker = RedisBroker(redis.client, redis.url, "waits")
    broker.send(event(0), event(1))
    topic = topic_of(broker)

    assert topic.waiting() == 2
    messages = topic.read(1)
    assert topic.waiting() == 2
    topic.done(messages)
    assert topic.waiting() == 1
    topic.close()


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [("", "redis", "ELCREC_STREAM"), ("kafka://x:1", "redis", "redis://"), ("redis://x:1", "kafka", "kafka://")],
)
def test_an_address_must_fit_the_kind_of_broker(address: str, kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_topic(StreamConfig(kind=kind), {"ELCREC_STREAM": address})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "said"),
    [("group.id=x", "line 1"), ("# c\nnonsense", "line 2"), ("no.such.option=1", "Kafka refuses"), (None, "readable")],
)
def test_options_of_the_client_are_checked(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "client.properties"
    if content is not None:
        file.write_text(content)

    with pytest.raises(UserError, match=said):
        open_topic(StreamConfig(kind="kafka", client_options=str(file)), {"ELCREC_STREAM": "kafka://localhost:1"})
