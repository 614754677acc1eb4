"""Telemetry for operators: Prometheus metrics, and log lines of one JSON object each.

Neither holds personal data: no user id, no item id, no history, no address.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from elcrec.serving.arm_metrics import ArmMetrics

_LATENCY = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_FAULTS_A_SECOND, _LINES_A_SECOND = 5, 1000

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Telemetry:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Create every metric, so that all exist from the first scrape."""
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self._shown: tuple[str, str, str] | None = None
        self.latency = Histogram(
            "elcrec_request_seconds",
            "Time from a request's headers to its answer.",
            ("route", "status"),
            buckets=_LATENCY,
            registry=own,
        )
        self.batch_size = Histogram(
            "elcrec_batch_size", "Requests that were ranked together.", buckets=_SIZES, registry=own
        )
        self.store_seconds = Histogram(
            "elcrec_store_seconds", "Time that the online store took to read a batch.", buckets=_LATENCY, registry=own
        )
        self.recommendations = Counter(
            "elcrec_recommendations",
            "Answers by model version and what chose their items.",
            ("version", "policy"),
            registry=own,
        )
        self.impressions = Counter("elcrec_impressions", "Items in answers.", ("version", "policy"), registry=own)
        self.cold_users = Counter("elcrec_cold_users", "Answers without any known history.", registry=own)
        self.unknown_items = Counter(
            "elcrec_unknown_items", "Items of histories that the model does not know.", registry=own
        )
        self.stale_features = Counter("elcrec_stale_features", "Answers from a stale history.", registry=own)
        self.store_errors = Counter(
            "elcrec_store_errors", "Failures and time-outs of the online store.", ("operation",), registry=own
        )
        self.store_fallbacks = Counter(
            "elcrec_store_fallbacks", "Answers given without the online store, which was wanted.", registry=own
        )
        self.events = Counter("elcrec_events", "Events by what became of them.", ("outcome",), registry=own)
        self.following_events = Counter(
            "elcrec_following_events", "Events that name the answer they follow; repeats count again.", registry=own
        )
        self.exposures = Counter(
            "elcrec_exposures", "Answers to be written down, by what became of them.", ("outcome",), registry=own
        )
        self.sent_exposures = Counter(
            "elcrec_sent_exposures",
            "Answers to be posted to serve.exposures.sink, by what became of them.",
            ("outcome",),
            registry=own,
        )
        self.swaps = Counter("elcrec_swaps", "New champions by what became of them.", ("outcome",), registry=own)
        self.registry_errors = Counter(
            "elcrec_registry_errors", "Failed looks at the registry's champion.", registry=own
        )
        self._problems = Gauge("elcrec_problem", "1 for a part that readiness calls faulty.", ("part",), registry=own)
        self._bundle = Gauge(
            "elcrec_bundle_info", "The bundle that serves.", ("name", "version", "digest"), registry=own
        )
        self._search = Gauge("elcrec_search_info", "How the best items are found.", ("kind",), registry=own)
        self.arms = ArmMetrics(own)
        for operation in ("read", "write"):
            self.store_errors.labels(operation)
        for outcome in ("written", "dropped", "failed"):
            self.exposures.labels(outcome)
        for outcome in ("sent", "dropped", "failed"):
            self.sent_exposures.labels(outcome)
        for outcome in ("swapped", "refused"):
            self.swaps.labels(outcome)

    def show_bundle(self, name: str, version: str, digest: str) -> None:
        """Set the gauge of the bundle that serves to 1, and that of the previous one to 0."""
        if self._shown:
            self._bundle.labels(*self._shown).set(0)
        self._shown = (name, version, digest)
        self._bundle.labels(*self._shown).set(1)

    def show_problems(self, problems: Mapping[str, str | None]) -> None:
        """Show for each part whether it has a problem."""
        for part, problem in problems.items():
            self._problems.labels(part).set(int(problem is not None))

    def show_search(self, kind: str) -> None:
        """Set the gauge of this kind of search to 1, and that of the other to 0."""
        for other in ("exact", "approximate"):
            self._search.labels(other).set(int(other == kind))

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Throttle(logging.Filter):
    """Limits the lines of one kind per second; the next line says how many were suppressed.

    A kind is a logger's message before its values are put in, so a flood of one fault hides no other.
    """

    def __init__(self, *, faults: int = _FAULTS_A_SECOND, other: int = _LINES_A_SECOND) -> None:
        """Take the largest number of lines of a kind per second, for warnings and errors, and for all others."""
        super().__init__()
        self._faults, self._other = faults, other
        self._seen: dict[tuple[str, str], list[int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        second, most = int(record.created), self._faults if record.levelno >= logging.WARNING else self._other
        last = self._seen.setdefault((record.name, str(record.msg)), [second, 0, 0])
        if last[0] != second:
            last[0], last[1] = second, 0
        last[1] += 1
        if last[1] > most:
            last[2] += 1
            return False
        if last[2]:
            record.fields = {**getattr(record, "fields", {}), "kept_back": last[2]}
            last[2] = 0
        return True


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; `extra={"fields": {…}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = _where(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _where(
    raised: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
) -> list[str]:
    """Return the type of an exception and the lines of its traceback, without its text, which may quote a request."""
    kind, _, trace = raised
    frames = traceback.extract_tb(trace)
    return [*(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames), kind.__name__ if kind else ""]


def log_as_json(stream: TextIO = sys.stderr) -> None:
    """Send every log line of the process to `stream` as JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers = [handler]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn").setLevel(logging.INFO)
