"""What the server and the consumer of events tell Prometheus, read off the objects that define it."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from elcrec.serving.stream_metrics import StreamMetrics
from elcrec.serving.telemetry import Telemetry


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
    found = {metric.name: metric for owner in (Telemetry(), StreamMetrics()) for metric in _own(owner)}
    process = (family for family in _families(Telemetry().registry) if family.name.startswith("process_"))
    return {**found, **{metric.name: metric for metric in process}}


def _own(owner: object) -> Iterator[Metric]:
    for value in vars(owner).values():
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            labels = tuple(value._labelnames)  # noqa: SLF001 - no public way
            yield Metric(family.name, family.type, family.documentation, labels)


def _families(registry: CollectorRegistry) -> Iterator[Metric]:
    for family in registry.collect():
        yield Metric(family.name, family.type, family.documentation, ())
