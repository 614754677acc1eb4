"""The Prometheus metrics of the server and of the consumer of events, read from the objects that define them."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from elcrec.serving.stream_metrics import StreamMetrics
from elcrec.serving.telemetry import Telemetry

_OF_PROCESSES = "process_"


class Metric(NamedTuple):
    """The definition of a metric.

    Attributes:
        name: name of the family, without the suffixes of its series.
        kind: `counter`, `gauge` or `histogram`.
        help: description, one sentence.
        labels: names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def series(self) -> str:
        """The name for queries."""
        return self.name + {"counter": "_total", "histogram": "_bucket"}.get(self.kind, "")


def defined() -> dict[str, Metric]:
    """Return all exposed metrics by name, in the order of definition."""
    found: dict[str, Metric] = {}
    for owner in (Telemetry(), StreamMetrics()):
        own = list(_of(owner.registry))
        found |= {metric.name: metric for metric in own if not metric.name.startswith(_OF_PROCESSES)}
    return found | {metric.name: metric for metric in own if metric.name.startswith(_OF_PROCESSES)}


def _of(registry: CollectorRegistry) -> Iterator[Metric]:
    for collector in registry._collector_to_names:  # noqa: SLF001 - there is no public way, neither for the labels
        labels = tuple(collector._labelnames) if isinstance(collector, MetricWrapperBase) else ()  # noqa: SLF001
        describe = collector.describe if isinstance(collector, MetricWrapperBase) else collector.collect
        for family in describe():
            yield Metric(family.name, family.type, family.documentation, labels)
