"""Prometheus metrics of champion and challenger side by side."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0)
_SHARES = tuple(place / 10 for place in range(11))


class ArmMetrics:
    """The metrics of the arms of a test, and of comparisons in shadow."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create every metric."""
        self._shown: tuple[str, str, str] | None = None
        self.answers = Counter(
            "elcrec_answers", "Answers by arm; without a test all are the champion's.", ("arm",), registry=registry
        )
        self.rank_seconds = Histogram(
            "elcrec_rank_seconds",
            "Time that a batch took to be ranked, by whose model ranked it.",
            ("arm",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "elcrec_challenger_failures",
            "Batches that the challenger failed to rank; the champion answered them.",
            registry=registry,
        )
        self.shadow = Counter(
            "elcrec_shadow",
            "Answers to be compared with the challenger's, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self.overlap = Histogram(
            "elcrec_shadow_overlap",
            "Share of an answer's items that the challenger would have shown too.",
            buckets=_SHARES,
            registry=registry,
        )
        self.rank_biased_overlap = Histogram(
            "elcrec_shadow_rank_biased_overlap",
            "Rank-biased overlap of an answer and the challenger's (p = 0.9): 1 where all items have the same places.",
            buckets=_SHARES,
            registry=registry,
        )
        self._challenger = Gauge(
            "elcrec_challenger_info",
            "The challenger that is loaded.",
            ("name", "version", "digest"),
            registry=registry,
        )
        for arm in ("champion", "challenger"):
            self.answers.labels(arm)
            self.rank_seconds.labels(arm)
        for outcome in ("compared", "dropped", "failed"):
            self.shadow.labels(outcome)

    def show_challenger(self, challenger: tuple[str, str, str] | None) -> None:
        """Set the gauge of the challenger (name, version and digest) to 1, and that of the previous one to 0."""
        if self._shown:
            self._challenger.labels(*self._shown).set(0)
        self._shown = challenger
        if challenger:
            self._challenger.labels(*challenger).set(1)
