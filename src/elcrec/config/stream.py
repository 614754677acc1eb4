"""The section `stream`: events from a broker."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import Positive, PositiveFloat, Section


class StreamConfig(Section, frozen=True, kw_only=True):
    """Events from a broker, for `elcrec events consume`; the environment variable `ELCREC_STREAM` is its address."""

    kind: Literal["redis", "kafka"] = "redis"
    """Redis Streams, or a broker with Kafka's protocol."""
    topic: str = "elcrec-events"
    """Topic, or the stream's key in Redis. Invalid messages go to the topic of this name with `.dead` appended."""
    group: str = "elcrec"
    """Consumer group, whose members share the messages."""
    batch: Positive = 500
    """Largest number of messages that are stored together."""
    retry: PositiveFloat = 1.0
    """Seconds until messages that the store or the broker did not accept are tried again; meanwhile nothing is read."""
    claim_after: PositiveFloat = 60.0
    """Seconds after which a consumer takes over messages that another one has read but not stored (Redis)."""
    client_options: str | None = None
    """File with options of librdkafka, one `key=value` per line, such as `security.protocol=SASL_SSL` (Kafka)."""
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port of the consumer's own /metrics; `None`: no such port."""
