"""Alerts on the metrics: the condition of each, its threshold, and its section of the runbook."""

from collections.abc import Sequence
from typing import Any, NamedTuple

RUNBOOK = "https://git.example/elcrec/blob/main/docs/runbook.md"
"""Address of the runbook; `--runbook` sets your own copy."""

_BY = "by (namespace, job)"


class Alert(NamedTuple):
    """An alert.

    Attributes:
        name: its name, also the heading of its section in docs/runbook.md.
        expr: PromQL; every resulting series is an alert.
        holds: how long the condition must hold.
        severity: `critical` needs action at once, `warning` can wait until the morning.
        summary: description of the problem for the person on call.
    """

    name: str
    expr: str
    holds: str
    severity: str
    summary: str


def _rate(series: str, window: str = "5m", *, offset: str = "") -> str:
    return f"sum {_BY} (rate({series}[{window}]{offset}))"


def _share(part: str, whole: str, window: str = "5m", *, offset: str = "") -> str:
    return f"{_rate(part, window, offset=offset)} / {_rate(whole, window, offset=offset)}"


_ANSWERS, _REQUESTS = "elcrec_recommendations_total", "elcrec_request_seconds_count"
_FOLLOWED = "elcrec_following_events_total"

ALERTS: Sequence[Alert] = (
    Alert(
        "ElcrecNoServer",
        "absent(elcrec_bundle_info == 1)",
        "2m",
        "critical",
        "Prometheus sees no server that serves a bundle.",
    ),
    Alert(
        "ElcrecErrors",
        _share(_REQUESTS + '{status=~"5.."}', _REQUESTS) + " > 0.01",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of requests fail.",
    ),
    Alert(
        "ElcrecSlow",
        "histogram_quantile(0.99, sum by (namespace, job, le) "
        '(rate(elcrec_request_seconds_bucket{route="/recommend"}[5m]))) > 0.2',
        "10m",
        "warning",
        "One in a hundred recommendations takes longer than {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "ElcrecProblem",
        "max by (namespace, job, part) (elcrec_problem) == 1",
        "10m",
        "warning",
        "Readiness names a problem of the part {{ $labels.part }}.",
    ),
    Alert(
        "ElcrecSeveralBundles",
        "count by (namespace, job) (count by (namespace, job, digest) (elcrec_bundle_info == 1)) > 1",
        "15m",
        "warning",
        "Servers have served {{ $value }} different bundles for a quarter of an hour.",
    ),
    Alert(
        "ElcrecStoreDown",
        _share("elcrec_store_fallbacks_total", _ANSWERS) + " > 0.05",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of answers were given without the online store.",
    ),
    Alert(
        "ElcrecEventsNotStored",
        _rate('elcrec_store_errors_total{operation="write"}') + " > 0",
        "5m",
        "critical",
        "The online store does not take events.",
    ),
    Alert(
        "ElcrecNewUsersRefused",
        _rate('elcrec_events_total{outcome="refused"}', "15m") + " > 0",
        "15m",
        "warning",
        "Events of new users are refused: all their places are taken.",
    ),
    Alert(
        "ElcrecExposuresLost",
        f'sum {_BY} (increase(elcrec_exposures_total{{outcome=~"dropped|failed"}}[10m])) > 0',
        "0m",
        "warning",
        "{{ $value | humanize }} answers of the last ten minutes are in no file of exposures.",
    ),
    Alert(
        "ElcrecColdUsers",
        _share("elcrec_cold_users_total", _ANSWERS, "30m") + " > 0.5",
        "30m",
        "warning",
        "{{ $value | humanizePercentage }} of answers are the most popular items, for want of a known history.",
    ),
    Alert(
        "ElcrecStaleHistories",
        _share("elcrec_stale_features_total", _ANSWERS, "1h") + " > 0.5",
        "1h",
        "warning",
        "{{ $value | humanizePercentage }} of answers rest on a stale history.",
    ),
    Alert(
        "ElcrecUnknownItems",
        _share("elcrec_unknown_items_total", _ANSWERS, "1h") + " > 1",
        "6h",
        "warning",
        "Histories hold {{ $value | humanize }} items an answer that the model does not know.",
    ),
    Alert(
        "ElcrecClicksFell",
        f"{_share(_FOLLOWED, _ANSWERS, '1h')} < 0.5 * {_share(_FOLLOWED, _ANSWERS, '1h', offset=' offset 1d')}"
        f" and {_rate(_ANSWERS, '1h')} > 0.1",
        "1h",
        "warning",
        "Events that follow an answer are {{ $value | humanize }} an answer, less than half of yesterday's.",
    ),
    Alert(
        "ElcrecDeadLetters",
        f'sum {_BY} (increase(elcrec_stream_messages_total{{outcome="dead"}}[15m])) > 0',
        "0m",
        "warning",
        "{{ $value | humanize }} messages of the stream are no events and went to the dead letters.",
    ),
    Alert(
        "ElcrecStreamStuck",
        f"max {_BY} (elcrec_stream_waiting) > 0 unless {_rate('elcrec_stream_messages_total', '10m')} > 0",
        "10m",
        "critical",
        "{{ $value | humanize }} messages wait in the stream and none is handled.",
    ),
    Alert(
        "ElcrecStreamBehind",
        f"min_over_time(max {_BY} (elcrec_stream_waiting)[30m:1m]) > 10000",
        "30m",
        "warning",
        "The consumer of the stream has been {{ $value | humanize }} messages behind for half an hour.",
    ),
)


def rules(runbook: str = RUNBOOK) -> dict[str, Any]:
    """Return the alerts as a PrometheusRule of the Prometheus operator; its `spec` is a rule file of Prometheus."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "elcrec"},
        "spec": {"groups": [{"name": "elcrec", "rules": [_rule(alert, runbook) for alert in ALERTS]}]},
    }


def _rule(alert: Alert, runbook: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.holds,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook_url": f"{runbook}#{alert.name.lower()}"},
    }
