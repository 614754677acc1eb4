"""A Grafana dashboard: one panel per metric, by its kind, and a few that combine metrics."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from release.metrics import Metric, defined

LEFT_OUT = {
    "process_virtual_memory_bytes": "says nothing of the memory that is used",
    "process_start_time_seconds": "restarts are the cluster's to tell",
    "process_max_fds": "does not change",
}
"""Metrics without a panel, and why."""

_ROWS = (
    ("Requests", ("elcrec_request_seconds", "elcrec_batch_size")),
    (
        "Answers",
        (
            "elcrec_recommendations",
            "elcrec_impressions",
            "elcrec_following_events",
            "elcrec_exposures",
            "elcrec_sent_exposures",
        ),
    ),
    ("Histories", ("elcrec_cold_users", "elcrec_unknown_items", "elcrec_stale_features")),
    ("Online store and events", ("elcrec_store_", "elcrec_events")),
    ("Bundle", ("elcrec_problem", "elcrec_bundle_info", "elcrec_search_info", "elcrec_swaps", "elcrec_registry_")),
    ("Stream of events", ("elcrec_stream_",)),
    ("Process", ("process_",)),
)
"""Rows of the dashboard and the prefixes of their metrics; a metric without a row gets its own row at the end."""

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24
_WHERE = '{namespace=~"$namespace", job=~"$job"}'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}


class Panel(NamedTuple):
    """A graph.

    Attributes:
        queries: PromQL by the legend of its lines.
    """

    title: str
    help: str
    unit: str
    queries: Mapping[str, str]


_SHARES: Mapping[str, Sequence[Panel]] = {
    "Requests": (
        Panel(
            "Failed requests",
            "Share of requests that were answered with a status of 500 or more.",
            "percentunit",
            {
                "failed": 'sum(rate(elcrec_request_seconds_count{namespace=~"$namespace", job=~"$job", status=~"5.."}'
                f"[$__rate_interval])) / sum(rate(elcrec_request_seconds_count{_WHERE}[$__rate_interval]))"
            },
        ),
    ),
    "Answers": (
        Panel(
            "Events that follow an answer, for each answer",
            "A first sign of clicks; the table of exposures has the rest.",
            "none",
            {
                "events": f"sum(rate(elcrec_following_events_total{_WHERE}[$__rate_interval]))"
                f" / sum(rate(elcrec_recommendations_total{_WHERE}[$__rate_interval]))"
            },
        ),
    ),
    "Histories": (
        Panel(
            "Answers without a known or fresh history",
            "Shares of all answers.",
            "percentunit",
            {
                name: f"sum(rate(elcrec_{name}_total{_WHERE}[$__rate_interval]))"
                f" / sum(rate(elcrec_recommendations_total{_WHERE}[$__rate_interval]))"
                for name in ("cold_users", "stale_features")
            },
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard in Grafana's import format."""
    return {
        "uid": "elcrec",
        "title": "ELCRec",
        "tags": ["elcrec"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource(), _variable("namespace"), _variable("job")]},
        "panels": list(_placed()),
    }


def sections() -> dict[str, list[Panel]]:
    """Return the panels of each row; every metric that is not excluded has one."""
    rows: dict[str, list[Panel]] = {title: list(_SHARES.get(title, ())) for title, _ in _ROWS}
    for metric in defined().values():
        if metric.name not in LEFT_OUT:
            title = next((title for title, heads in _ROWS if metric.name.startswith(heads)), "Other")
            rows.setdefault(title, []).append(_panel(metric))
    return rows


def _panel(metric: Metric) -> Panel:
    return Panel(metric.name, metric.help, _unit(metric), _QUERIES[metric.kind](metric))


def _unit(metric: Metric) -> str:
    ending = metric.name.rpartition("_")[2]
    if metric.kind == "counter":
        return "percentunit" if ending == "seconds" else "cps"
    return _UNITS.get(ending, "short")


def _counter(metric: Metric) -> dict[str, str]:
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or metric.name
    return {legend: f"sum{by} (rate({metric.series}{_WHERE}[$__rate_interval]))"}


def _gauge(metric: Metric) -> dict[str, str]:
    if not metric.labels:
        return {"{{instance}}": f"{metric.series}{_WHERE}"}
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    return {legend: f"sum by ({', '.join(metric.labels)}) ({metric.series}{_WHERE})"}


def _histogram(metric: Metric) -> dict[str, str]:
    first = metric.labels[:1]
    by, legend = ", ".join(("le", *first)), "".join(f" {{{{{label}}}}}" for label in first)
    return {
        f"p{percent}{legend}": f"histogram_quantile(0.{percent}, sum by ({by}) "
        f"(rate({metric.series}{_WHERE}[$__rate_interval])))"
        for percent in (50, 99)
    }


_QUERIES = {"counter": _counter, "gauge": _gauge, "histogram": _histogram}


def _placed() -> Iterator[dict[str, Any]]:
    numbers, top = count(1), 0
    for title, panels in sections().items():
        at = {"h": 1, "w": _COLUMNS, "x": 0, "y": top}
        yield {"id": next(numbers), "type": "row", "title": title, "collapsed": False, "gridPos": at, "panels": []}
        top += 1
        for place, panel in enumerate(panels):
            line, column = divmod(place, _COLUMNS // _WIDTH)
            at = {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": top + line * _HEIGHT}
            yield _graph(panel, next(numbers), at)
        top += -(-len(panels) // (_COLUMNS // _WIDTH)) * _HEIGHT


def _graph(panel: Panel, number: int, at: Mapping[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        for place, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f'label_values({{__name__=~"elcrec_bundle_info|elcrec_stream_waiting"}}, {label})',
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
