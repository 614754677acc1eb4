"""From days to a verdict: limits, alarms after N bad days among the last M, and requests to retrain."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from elcrec.config import MonitorConfig
from elcrec.monitoring.checks import SIDES, Score, scores
from elcrec.monitoring.daily import Measured
from elcrec.monitoring.sentences import say
from elcrec.monitoring.thresholds import limit

Verdict = Literal["learning", "fine", "warn", "retrain"]
NEEDS_EVENTS = frozenset({"ctr", "conversion", "hit_rate", "calibration"})
"""Checks that need the events of a day, and so a settled day."""


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A whole day of a bundle.

    Attributes:
        date: such as 2026-03-01, UTC.
        settled: whether all events that may follow from its answers within the window have happened.
        measured: its measurements.
    """

    date: str
    settled: bool
    measured: Measured


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The reference days, each and together."""

    days: tuple[Day, ...]
    pooled: Measured


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement of a day.

    Attributes:
        judged: false if too few users were answered.
        verdict: verdict from the alarms of this day.
        scores: score of every check; for intents only that of the furthest one.
        bad: names of checks beyond their limit, such as `intent 12`.
        alarms: names of checks with enough bad days among the last days.
        reasons: one sentence per alarm.
    """

    date: str
    judged: bool
    verdict: Verdict
    scores: tuple[Score, ...] = ()
    bad: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def limits(config: MonitorConfig, reference: Reference) -> dict[str, float]:
    """Return the limit of each check by name; that of `intent` is for one intent."""
    given = {
        "reference_days": len(reference.days),
        "bad_days": config.bad_days,
        "of_days": config.of_days,
    }
    budget = config.false_alarms / len(SIDES)
    intents = max(1, len(reference.pooled.intents))
    return {
        name: limit(budget / (intents if name == "intent" else 1), sides=2 if side == "both" else 1, **given)
        for name, side in SIDES.items()
    }


def judge(config: MonitorConfig, days: Sequence[Day], reference: Reference) -> list[Judgement]:
    """Judge the days after the reference, in order; the same days give the same judgements."""
    beyond, found = limits(config, reference), []
    last: dict[str, deque[Score | None]] = defaultdict(lambda: deque(maxlen=config.of_days))
    known = [day.measured for day in reference.days]
    for day in days:
        if day.measured.users < config.min_users:
            found.append(Judgement(date=day.date, judged=False, verdict="fine"))
            continue
        seen = [
            score
            for score in scores(day.measured, known, reference.pooled)
            if day.settled or score.check not in NEEDS_EVENTS
        ]
        for score in seen:
            last[name_of(score)].append(score if score.beyond(beyond[score.check]) else None)
        found.append(_judgement(config, day, seen, last, beyond))
    return found


def name_of(score: Score) -> str:
    """Return the name of a check, such as `ctr` or `intent 12`."""
    return f"{score.check} {score.cell}".rstrip()


def _judgement(
    config: MonitorConfig,
    day: Day,
    seen: Sequence[Score],
    last: Mapping[str, Sequence[Score | None]],
    beyond: Mapping[str, float],
) -> Judgement:
    bad = {name: [score for score in recent if score] for name, recent in last.items()}
    alarms = {name: recent[-1] for name, recent in bad.items() if len(recent) >= config.bad_days}
    asks = any(score.check in config.retrain_on for score in alarms.values())
    return Judgement(
        date=day.date,
        judged=True,
        verdict="retrain" if asks else "warn" if alarms else "fine",
        scores=tuple(_furthest(seen)),
        bad=tuple(name_of(score) for score in seen if score.beyond(beyond[score.check])),
        alarms=tuple(alarms),
        reasons=tuple(say(score) for score in alarms.values()),
    )


def _furthest(seen: Sequence[Score]) -> list[Score]:
    """Return one score per check; for intents, that of the intent furthest from the reference."""
    chosen: dict[str, Score] = {}
    for score in seen:
        if score.check not in chosen or abs(score.score) > abs(chosen[score.check].score):
            chosen[score.check] = score
    return list(chosen.values())


def may_ask(requests: Sequence[datetime], now: datetime, cool_down_days: int) -> bool:
    """Return whether the cool-down after the last request to retrain is over."""
    return all(now - asked >= timedelta(days=cool_down_days) for asked in requests)
