"""What the server and the consumer of events tell Prometheus, read off the objects that define it."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from elcrec.serving.stream_metrics import StreamMetrics
from elcrec.serving.telemetry import Telemetry

_OF_PROCESSES = "process_"


class Metric(NamedTuple):
    """A metric as its process defines it.

    Attributes:
        name: of the family, without the endings of its series.
        kind: `counter`, `gauge` or `histogram`.
        help: what it counts, one sentence.
        labels: names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def series(self) -> str:
        """The name that a query asks for."""
        return self.name + {"counter": "_total", "histogram": "_bucket"}.get(self.kind, "")


def defined() -> dict[str, Metric]:
    """Return every metric that is exposed, by name, in the order of its definition."""
    found: dict[str, Metric] = {}
    for owner in (Telemetry(), StreamMetrics()):
        own = list(_of(owner.registry))
        found |= {metric.name: metric for metric in own if not metric.name.startswith(_OF_PROCESSES)}
    return found | {metric.name: metric for metric in own if metric.name.startswith(_OF_PROCESSES)}


def _of(registry: CollectorRegistry) -> Iterator[Metric]:
    for collector in registry._collector_to_names:  # noqa: SLF001 - no public way, as of the labels
        labels = tuple(collector._labelnames) if isinstance(collector, MetricWrapperBase) else ()  # noqa: SLF001
        describe = collector.describe if isinstance(collector, MetricWrapperBase) else collector.collect
        for family in describe():
            yield Metric(family.name, family.type, family.documentation, labels)
