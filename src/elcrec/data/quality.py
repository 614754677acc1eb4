"""Quality checks of a whole log: size, freshness, plausibility, and drift from the last accepted log."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from elcrec.config import ValidateConfig
from elcrec.data.bounds import Bound, Severity, judge
from elcrec.data.profile import Profile, length_drift, popularity_drift, row_change
from elcrec.data.rows import PLAUSIBLE, UNIQUE, latest_time
from elcrec.data.survey import Survey
from elcrec.data.suspects import most_events
from elcrec.data.times import DAY, likely_unit
from elcrec.data.versions import known_share

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = (PLAUSIBLE, "timestamp is readable", "timestamp is not in the future", "timestamp is not negative")
_POPULARITY, _LENGTH, _ROWS = "drift of item popularity", "drift of history length", "change of row count"
_USERS, _ITEMS, _NEWEST, _PERIOD = "users of the last log", "items of the last log", "newest event", "change of period"
DRIFT = (_POPULARITY, _LENGTH, _ROWS, _USERS, _ITEMS, _NEWEST, _PERIOD)
_SHARE_STEP, _GAP_STEP = 3, 3
"""Factor to the last log beyond which a share or a gap is reported."""
_LEAST_SHARE, _LEAST_GAP = 0.01, 7


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        observed: the finding as text.
    """

    name: str
    severity: Severity
    passed: bool
    observed: str
    expected: str


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The verdict on a log.

    Attributes:
        drift_accepted: who accepted its drift, and why; empty if no one did.
    """

    survey: Survey
    checks: list[Check]
    drift_accepted: str = ""

    @property
    def failures(self) -> list[Check]:
        """The critical checks that failed; if empty, the log is accepted."""
        return [check for check in self.checks if check.severity == "critical" and not check.passed]

    @property
    def passed(self) -> bool:
        """Whether the log is accepted."""
        return not self.failures


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A figure of the log, its bound, and its format."""

    value: float
    bound: Bound
    observed: str


def assess(survey: Survey, config: ValidateConfig, *, now: datetime) -> Assessment:
    """Check a log.

    Args:
        survey: the figures of the log.
        config: the limits.
        now: the present time.
    """
    figures = [
        *_rows(survey),
        *_lines(survey, config),
        *_amounts(survey, config),
        *_times(survey, config, now),
        _order(survey.out_of_order, config),
        *_freshness(survey, config, now),
        *_drift(survey, config),
        *_suspects(survey, config),
    ]
    return Assessment(survey=survey, checks=[_schema(survey), *_checks(figures)])


def with_drift_accepted(assessment: Assessment, reason: str) -> Assessment:
    """Return an assessment in which drift is only a warning; `reason` says who accepts it, and why.

    If there is no drift, the assessment is unchanged.
    """
    drifted = [check for check in assessment.failures if check.name in DRIFT]
    if not drifted:
        return assessment
    checks = [replace(check, severity="warning") if check in drifted else check for check in assessment.checks]
    return replace(assessment, checks=checks, drift_accepted=reason)


def _schema(survey: Survey) -> Check:
    """Return the check of the schema, which always passes: reading refuses a log with missing or wrong columns."""
    observed = ", ".join(f"{name}: {kind}" for name, kind in survey.types.items())
    expected = "user and item as text or integers, a time of a known form"
    return Check(name="schema", severity="critical", passed=True, observed=observed, expected=expected)


def _checks(figures: list[_Figure]) -> list[Check]:
    table = pd.DataFrame({figure.bound.column: [figure.value] for figure in figures})
    passed = judge(table, [figure.bound for figure in figures])
    return [_check(figure, passed[figure.bound.name]) for figure in figures]


def _check(figure: _Figure, passed: bool) -> Check:
    bound = figure.bound
    return Check(
        name=bound.name,
        severity=bound.severity,
        passed=passed,
        observed=figure.observed,
        expected=bound.expected,
    )


def _figure(
    name: str, value: float, expected: str, observed: str, *, severity: Severity = "critical", **limits: float
) -> _Figure:
    bound = Bound(name=name, column=name, expected=expected, severity=severity, **limits)
    return _Figure(value=float(value), bound=bound, observed=observed)


def _rows(survey: Survey) -> list[_Figure]:
    # If every row is torn, the other rules do not apply to any row.
    asked = [rule for rule in survey.rules if rule.about_torn or survey.torn < survey.rows]
    return [
        _figure(
            rule.name,
            survey.broken[rule.name],
            rule.expected,
            f"{survey.broken[rule.name]:,} rows break it",
            severity="warning",
            maximum=0,
        )
        for rule in asked
    ]


def _lines(survey: Survey, config: ValidateConfig) -> list[_Figure]:
    """Check, if fields span lines, whether they contain rows, as happens after an unclosed quote."""
    lines = survey.lines
    if lines is None or lines.longest is None:
        return []
    first, last = lines.longest
    share = lines.swallowed / max(1, lines.count)
    observed = (
        f"{lines.count:,} lines, {survey.rows:,} rows; the longest field spans the lines {first} to {last}; "
        f"{lines.swallowed:,} lines within fields look like rows"
    )
    most = config.max_quarantine_share
    return [_figure("no field has swallowed rows", share, f"{most:.2%} of lines at most", observed, maximum=most)]


def _amounts(survey: Survey, config: ValidateConfig) -> list[_Figure]:
    profile, faulty, apart = survey.profile, survey.sorted.quarantined, _duplicates(survey, config)
    faulty -= sum(int(figure.value * survey.rows + 0.5) for figure in apart)
    share = faulty / max(1, survey.rows)
    mean = profile["rows"] / max(1, profile["users"])
    most = config.max_quarantine_share
    return [
        _figure(
            "share of faulty rows",
            share,
            f"{most:.2%} at most",
            f"{share:.2%} ({_rows_of(faulty)})",
            maximum=most,
        ),
        *apart,
        _least("accepted rows", profile["rows"], config.min_rows),
        _least("users", profile["users"], config.min_users),
        _least("items", profile["items"], config.min_items),
        _least("interactions per user", mean, config.min_interactions_per_user),
    ]


def _times(survey: Survey, config: ValidateConfig, now: datetime) -> list[_Figure]:
    """Check whether times are plausible; if not, find out whether the numbers have another unit."""
    faults = [fault for fault in survey.sorted.faults if fault.reason in _TIMES]
    count = sum(fault.count for fault in faults)
    if survey.time != "real" or not count:
        return []
    first = (datetime.fromisoformat(config.earliest).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    shown = [row["timestamp"] for row in faults[0].examples]
    unit = likely_unit(shown, first, latest_time(now))
    advice = f"; they look like numbers in {unit}: set validate.epoch_unit={unit}" if unit else ""
    observed = f"{_rows_of(count)} outside, such as {', '.join(map(str, shown[:3]))}{advice}"
    most, share = config.max_quarantine_share, count / max(1, survey.rows)
    expected = f"{config.earliest} to a day from now, {1 - most:.2%} of rows at least (epoch_unit={config.epoch_unit})"
    return [_figure("times of a plausible period", share, expected, observed, maximum=most)]


def _duplicates(survey: Survey, config: ValidateConfig) -> list[_Figure]:
    """Check repeated rows against their own limit, if there is one."""
    most = config.max_duplicate_share
    if most is None:
        return []
    count = sum(fault.count for fault in survey.sorted.faults if fault.reason == UNIQUE)
    share = count / max(1, survey.rows)
    observed, expected = f"{share:.2%} ({_rows_of(count)})", f"{most:.2%} at most"
    return [_figure("share of repeated rows", share, expected, observed, maximum=most)]


def _rows_of(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _least(name: str, value: float, least: float) -> _Figure:
    observed = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
    return _figure(name, value, f"{least:,} at least", observed, minimum=least)


def _order(out_of_order: int, config: ValidateConfig) -> _Figure:
    observed = f"{out_of_order:,} events are after a later one"
    if config.order == "strict":
        return _figure("events in time order", out_of_order, "every user's events in order", observed, maximum=0)
    expected = "any order: the sequences stage sorts"
    return _figure("events in time order", out_of_order, expected, observed, severity="info", minimum=0)


def _freshness(survey: Survey, config: ValidateConfig, now: datetime) -> list[_Figure]:
    if survey.time != "real" or config.max_age_days is None or survey.figures.last is None:
        return []
    newest = _EPOCH + timedelta(microseconds=survey.figures.last)
    observed = f"newest event {newest:%Y-%m-%d %H:%M} UTC"
    expected = f"{config.max_age_days:g} days old at most"
    return [_figure("freshness", (now - newest) / _DAY, expected, observed, maximum=config.max_age_days)]


def _drift(survey: Survey, config: ValidateConfig) -> list[_Figure]:
    profile, previous, popular = survey.profile, survey.previous, survey.popular_before
    if previous is None or popular is None or not profile["rows"]:
        return []
    change = row_change(profile, previous)
    moved = {
        _POPULARITY: popularity_drift(popular, previous),
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
        *_known(survey, previous, config),
        *(_periods(survey, previous, config) if survey.time == "real" and previous.get("last") is not None else []),
    ]


def _known(survey: Survey, previous: Profile, config: ValidateConfig) -> list[_Figure]:
    """Compare users and items with those of the last log, and the largest of each."""
    if "known" not in previous:
        return []
    figures = []
    least = {_USERS: config.min_known_users, _ITEMS: config.min_known_items}
    for (name, share), now, before in zip(least.items(), survey.figures.sketches, previous["known"], strict=True):
        known = known_share(now, before)
        expected = f"{share:.0%} at least; give an unrelated log its own fetch.file.name"
        figures.append(_figure(name, known, expected, f"{known:.1%} were in the last log", minimum=share))
    now, before = survey.profile["largest_user_share"], previous["largest_user_share"]
    most = max(_LEAST_SHARE, _SHARE_STEP * before)
    observed, expected = f"{now:.2%} of the events ({before:.2%} in the last log)", f"{most:.2%} at most"
    return [*figures, _figure("growth of the largest user", now, expected, observed, severity="warning", maximum=most)]


def _periods(survey: Survey, previous: Profile, config: ValidateConfig) -> list[_Figure]:
    """Check that a log continues the last one, covers a similar period, and has no gap."""
    profile = survey.profile
    spans = [(log["last"] - log["first"]) / DAY + 1 for log in (profile, previous)]
    change, shrunk = spans[0] / spans[1] - 1, max(0.0, 1 - spans[0] / spans[1])
    behind = (previous["last"] - profile["last"]) / DAY
    newest = f"{_moment(profile['last'])} ({_moment(previous['last'])} in the last log)"
    most, between = config.max_row_change, int((profile["first"] - previous["last"]) / DAY)
    gap = max(profile["longest_gap_days"], between)
    widest = max(_LEAST_GAP, _GAP_STEP * previous["longest_gap_days"])
    period = f"{change:+.1%} ({spans[1]:,.0f} → {spans[0]:,.0f} days)"
    days = f"{gap:,} days without an event ({previous['longest_gap_days']:,} in the last log)"
    return [
        _figure(_NEWEST, behind, "a day before that of the last log at most", newest, maximum=1),
        _figure(_PERIOD, shrunk, f"{most:.0%} shorter at most", period, maximum=most),
        _figure("gap in time", gap, f"{widest:,} days at most", days, severity="warning", maximum=widest),
    ]


def _moment(micros: int) -> str:
    return f"{_EPOCH + timedelta(microseconds=micros):%Y-%m-%d %H:%M} UTC"


def _suspects(survey: Survey, config: ValidateConfig) -> list[_Figure]:
    """Report users and items with an implausible share of the log, and ids that look alike."""
    if not survey.profile["rows"]:
        return []
    figures, rows = [], survey.profile["rows"]
    kinds = (
        ("user", survey.profile["users"], config.max_user_share),
        ("item", survey.profile["items"], config.max_item_share),
    )
    for (kind, ids, share), found, alike in zip(kinds, survey.figures.largest, survey.figures.alike, strict=True):
        if found is not None:
            most = most_events(rows, ids, share)
            expected = f"{most / rows:.0%} of the events at most; set validate.leave_out_heavy to leave larger ones out"
            observed = f"{found.id[:80]!r} has {found.events:,} of {rows:,} events ({found.events / rows:.1%})"
            name = f"share of the largest {kind}"
            figures.append(_figure(name, found.events, expected, observed, severity="warning", maximum=most))
        if alike.example:
            observed = f"{alike.ids:,}, such as {alike.example[0][:80]!r} and {alike.example[1][:80]!r}"
            expected = "known to be different: case and leading zeros count"
            figures.append(_figure(f"{kind}s whose ids look alike", 0, expected, observed, severity="info", minimum=0))
    if survey.others:
        figures.append(
            _figure("rows that do not count", 0, "by validate.keep", f"{survey.others:,}", severity="info", minimum=0)
        )
    if survey.left_out:
        observed = f"{len(survey.left_out):,}: {', '.join(map(str, survey.left_out[:3]))}"
        figures.append(_figure("left out", 0, "by validate.leave_out_heavy", observed, severity="info", minimum=0))
    return figures


def check_rows(checks: list[Check]) -> list[dict[str, Any]]:
    """Return the checks as plain dicts, ready for JSON."""
    return [asdict(check) for check in checks]
