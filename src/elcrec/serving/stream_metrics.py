"""Prometheus metrics of the process that takes events from a stream."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)


class StreamMetrics:
    """The consumer's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Create every metric, so that all exist from the first scrape."""
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.messages = Counter(
            "elcrec_stream_messages", "Messages by what became of them.", ("outcome",), registry=own
        )
        self.events = Counter(
            "elcrec_stream_events", "Events of messages by what became of them.", ("outcome",), registry=own
        )
        self.retries = Counter(
            "elcrec_stream_retries",
            "Batches to be tried again: the store or the broker did not take them.",
            registry=own,
        )
        self.batch_seconds = Histogram(
            "elcrec_stream_batch_seconds", "Time to store a batch of messages.", buckets=_SECONDS, registry=own
        )
        self.waiting = Gauge("elcrec_stream_waiting", "Messages that are not handled yet.", registry=own)
        for outcome in ("handled", "dead"):
            self.messages.labels(outcome)
        for outcome in ("accepted", "duplicates", "late"):
            self.events.labels(outcome)
