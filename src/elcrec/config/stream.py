"""The section `stream`: events from a broker."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import Positive, PositiveFloat, Section


class StreamConfig(Section, frozen=True, kw_only=True):
    """Events from a broker, by `elcrec events consume`; `ELCREC_STREAM` in the environment is its address."""

    kind: Literal["redis", "kafka"] = "redis"
    """Redis Streams, or whatever speaks Kafka's protocol."""
    topic: str = "elcrec-events"
    """Topic, or the stream's key in Redis. What is no event goes to the one of this name and `.dead`."""
    group: str = "elcrec"
    """Consumers of one group share the messages."""
    batch: Positive = 500
    """Most messages that are stored together."""
    retry: PositiveFloat = 1.0
    """Seconds until what the store or the broker did not take is tried again; nothing further is read meanwhile."""
    claim_after: PositiveFloat = 60.0
    """Seconds after which a consumer takes over what another one has read and not stored (Redis)."""
    client_options: str | None = None
    """File with options of librdkafka, a `key=value` a line, such as `security.protocol=SASL_SSL` (Kafka)."""
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port of the consumer's own /metrics; `None`: there is none."""
