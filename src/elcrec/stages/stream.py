"""Store events from a stream in the online store, until told to stop."""

from collections.abc import Container, Sequence
from threading import Event as Flag

from elcrec.config import StreamConfig
from elcrec.serving.ports import Event, FeatureStore
from elcrec.serving.stream import StreamConsumer, Topic
from elcrec.serving.stream_metrics import StreamMetrics


def consume(
    config: StreamConfig,
    topic: Topic,
    *,
    features: FeatureStore,
    metrics: StreamMetrics,
    stop: Flag,
    dislikes: Container[str] = (),
) -> dict[str, int]:
    """Store the events of a topic until `stop` is set; return the outcome.

    Args:
        config: the section `stream`.
        topic: the topic to read.
        features: the feature store for the events.
        metrics: metrics of this process.
        stop: once set, the current batch is finished and no other is begun.
        dislikes: kinds of events that express dislike.
    """
    totals = dict.fromkeys(("events", "accepted", "duplicates", "late"), 0)

    def store(events: Sequence[Event]) -> dict[str, int]:
        outcome = features.push_events(events, dislikes=dislikes)
        counts = {name: getattr(outcome, name) for name in ("accepted", "duplicates", "late")}
        for name, number in (counts | {"events": len(events)}).items():
            totals[name] += number
        return counts

    StreamConsumer(config, topic, store, metrics, stop).run()
    return totals
