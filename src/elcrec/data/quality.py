"""Judge a whole log: faulty rows aside, is it large, fresh and familiar enough to train on?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.config import ValidateConfig
from elcrec.data.bounds import Bound, Severity, Verdict, judge
from elcrec.data.log import RawLog
from elcrec.data.profile import Profile, describe, length_drift, popularity_drift, row_change
from elcrec.data.rows import EVENT_ID, MALFORMED, SortedRows, integer_keys, measure_rows, row_rules, sort_out

_DAY = timedelta(days=1)
_DRIFT = _POPULARITY, _LENGTH, _ROWS = ("drift of item popularity", "drift of history length", "change of row count")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        observed: what was found, as a person reads it.
    """

    name: str
    severity: Severity
    passed: bool
    observed: str
    expected: str


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A log with its verdict.

    Attributes:
        drift_accepted: who took its drift for good, and why; empty where nobody was asked.
    """

    log: RawLog
    rows: SortedRows
    checks: list[Check]
    profile: Profile
    previous: Profile | None
    out_of_order: int
    drift_accepted: str = ""

    @property
    def failures(self) -> list[Check]:
        """The critical checks that failed; none means that the log is accepted."""
        return [check for check in self.checks if check.severity == "critical" and not check.passed]

    @property
    def passed(self) -> bool:
        """Whether the log is accepted."""
        return not self.failures


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A number about the log, the bound on it, and how to print it."""

    value: float
    bound: Bound
    observed: str


def assess(
    log: RawLog,
    config: ValidateConfig,
    *,
    source: Mapping[str, Any],
    previous: Profile | None = None,
    now: datetime | None = None,
) -> Assessment:
    """Sort the rows and check the log.

    Args:
        log: what was read.
        config: the limits.
        source: the log's `source.json`.
        previous: profile of the log that was accepted before, of the same data set.
        now: what counts as the present; the clock by default.
    """
    now = now or datetime.now(UTC)
    rules = row_rules(config.max_id_length, now, event_ids=EVENT_ID in log.table.column_names)
    measures = measure_rows(log)
    rows = sort_out(log, measures, rules)
    profile = describe(rows.interactions, dataset=source["dataset"], time=log.time, md5=source["md5"])
    out_of_order = count_out_of_order(rows.interactions)
    figures = [
        *_amounts(log, rows, profile, config),
        _order(out_of_order, config),
        *_freshness(log, rows.interactions, config, now),
        *_drift(rows.interactions, profile, previous, config),
    ]
    checks = [_schema(log), *_row_checks(measures, rules), *_table_checks(figures)]
    return Assessment(log=log, rows=rows, checks=checks, profile=profile, previous=previous, out_of_order=out_of_order)


def with_drift_accepted(assessment: Assessment, reason: str) -> Assessment:
    """Return an assessment in which drift from the last accepted log is a warning; `reason` says who took it and why.

    Where nothing drifted there is nothing to accept.
    """
    drifted = [check for check in assessment.failures if check.name in _DRIFT]
    if not drifted:
        return assessment
    checks = [replace(check, severity="warning") if check in drifted else check for check in assessment.checks]
    return replace(assessment, checks=checks, drift_accepted=reason)


def count_out_of_order(interactions: pa.Table) -> int:
    """Return how many events stand in the log after a later event of the same user."""
    if not len(interactions):
        return 0
    user, time = (integer_keys(interactions[name]) for name in ("user_id", "timestamp"))
    order = np.argsort(user, kind="stable")
    user, time = user[order], time[order]
    return int(((np.diff(time) < 0) & (np.diff(user) == 0)).sum())


def _schema(log: RawLog) -> Check:
    """Reading refuses a log that lacks a column or has the wrong type; the report says what it read."""
    observed = ", ".join(f"{name}: {kind}" for name, kind in log.types.items())
    expected = "user and item as text or integers, a time of a known form"
    return Check(name="schema", severity="critical", passed=True, observed=observed, expected=expected)


def _row_checks(measures: pd.DataFrame, rules: list[Bound]) -> list[Check]:
    if measures.empty:  # every row is malformed, which the amounts below tell
        return []
    verdicts = judge(measures, rules)
    return [_check(rule, verdicts[rule.name], f"{verdicts[rule.name].broken:,} rows break it") for rule in rules]


def _table_checks(figures: list[_Figure]) -> list[Check]:
    table = pd.DataFrame({figure.bound.column: [figure.value] for figure in figures})
    verdicts = judge(table, [figure.bound for figure in figures])
    return [_check(figure.bound, verdicts[figure.bound.name], figure.observed) for figure in figures]


def _check(bound: Bound, verdict: Verdict, observed: str) -> Check:
    return Check(
        name=bound.name,
        severity=bound.severity,
        passed=verdict.passed,
        observed=observed,
        expected=bound.expected,
    )


def _figure(
    name: str, value: float, expected: str, observed: str, *, severity: Severity = "critical", **limits: float
) -> _Figure:
    bound = Bound(name=name, column=name, expected=expected, severity=severity, **limits)  # type: ignore[arg-type]
    return _Figure(value=float(value), bound=bound, observed=observed)


def _amounts(log: RawLog, rows: SortedRows, profile: Profile, config: ValidateConfig) -> list[_Figure]:
    malformed, faulty = len(log.malformed), len(rows.quarantine)
    share = faulty / log.num_rows
    mean = profile["rows"] / max(1, profile["users"])
    most = config.max_quarantine_share
    return [
        _figure(
            MALFORMED,
            malformed,
            "no torn lines",
            f"{malformed:,} rows break it",
            severity="warning",
            maximum=0,
        ),
        _figure(
            "share of faulty rows",
            share,
            f"{most:.2%} at most",
            f"{share:.2%} ({faulty:,} rows)",
            maximum=most,
        ),
        _least("accepted rows", profile["rows"], config.min_rows),
        _least("users", profile["users"], config.min_users),
        _least("items", profile["items"], config.min_items),
        _least("interactions per user", mean, config.min_interactions_per_user),
    ]


def _least(name: str, value: float, least: float) -> _Figure:
    observed = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return _figure(name, value, f"{least:,} at least", observed, minimum=least)


def _order(out_of_order: int, config: ValidateConfig) -> _Figure:
    observed = f"{out_of_order:,} events stand after a later one"
    if config.order == "strict":
        return _figure("events in time order", out_of_order, "every user's events in order", observed, maximum=0)
    expected = "any order: the sequences stage sorts"
    return _figure("events in time order", out_of_order, expected, observed, severity="info", minimum=0)


def _freshness(log: RawLog, interactions: pa.Table, config: ValidateConfig, now: datetime) -> list[_Figure]:
    if log.time != "real" or config.max_age_days is None or not len(interactions):
        return []
    newest = pc.max(interactions["timestamp"]).as_py()
    observed = f"newest event {newest:%Y-%m-%d %H:%M} UTC"
    expected = f"{config.max_age_days:g} days old at most"
    return [_figure("freshness", (now - newest) / _DAY, expected, observed, maximum=config.max_age_days)]


def _drift(interactions: pa.Table, profile: Profile, previous: Profile | None, config: ValidateConfig) -> list[_Figure]:
    if previous is None or not len(interactions):
        return []
    change = row_change(profile, previous)
    moved = {
        _POPULARITY: popularity_drift(interactions, previous),
        _LENGTH: length_drift(profile, previous),
    }
    expected = f"stability index {config.max_drift:g} at most"
    return [
        *(_figure(name, value, expected, f"{value:.4f}", maximum=config.max_drift) for name, value in moved.items()),
        _figure(
            _ROWS,
            change,
            f"{config.max_row_change:.0%} at most",
            f"{change:.1%} ({previous['rows']:,} → {profile['rows']:,})",
            maximum=config.max_row_change,
        ),
    ]


def check_rows(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as plain dicts, ready for JSON."""
    return [asdict(check) for check in checks]
