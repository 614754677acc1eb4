"""Whether a challenger becomes the champion: the result of a test, and the conditions for having a result."""

from collections.abc import Mapping, Sequence
from math import erfc, sqrt
from typing import Literal

import msgspec

from elcrec.config import PromoteConfig
from elcrec.monitoring.arms import ARMS, Day
from elcrec.monitoring.sequential import Estimate, estimate, narrowed
from elcrec.serving.arms import Arm

Outcome = Literal["promote", "collect", "drop", "refused", "none"]
"""`collect`: not decided yet; `refused`: the split of users is invalid; `none`: there is no challenger."""

_SPLIT_ALARM = 0.001
"""Probability below which an uneven split of users is not attributed to chance (Fabijan et al. 2019)."""
_MOST_CROSSED = 0.01
"""Largest share of users in both arms, which happens while servers are restarted one by one."""
NAMES = {"ctr": "click-through rate", "conversion": "conversion", "hit_rate": "hit rate of the next event"}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a test after a day, with estimates.

    Attributes:
        day: number of the day since 1970, UTC.
        users: distinct users of each arm so far.
        counts: whether the test may be judged at this look: enough days, and enough users in each arm.
        estimates: lift of each metric over all days so far; intervals are intersected with those of earlier looks that
            count.
    """

    day: int
    users: dict[Arm, int]
    counts: bool
    estimates: dict[str, Estimate]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a test.

    Attributes:
        outcome: what to do.
        reason: one sentence.
        looks: the days so far.
        split: chance of a split of users as uneven as this one, if `serve.challenger.share` is as configured.
        crossed: users found in both arms, who count for neither.
    """

    outcome: Outcome
    reason: str
    looks: tuple[Look, ...] = ()
    split: float | None = None
    crossed: int = 0


def decide(config: PromoteConfig, days: Sequence[Day], crossed: int, *, share: float) -> Decision:
    """Judge a test by its days so far.

    Args:
        config: the section `promote`.
        days: all days from the first whole day of the test, without gaps.
        crossed: users found in both arms.
        share: part of the users that the challenger should have.
    """
    looks = tuple(_looks(config, days))
    if not looks:
        return Decision(outcome="collect", reason="no whole day of the test has passed and settled yet")
    users = looks[-1].users
    split = split_chance(users, share)
    problem = _split_problem(users, split, crossed, share)
    outcome, reason = _judged(config, looks) if problem is None else ("refused", problem)
    return Decision(outcome=outcome, reason=reason, looks=looks, split=split, crossed=crossed)


def split_chance(users: Mapping[Arm, int], share: float) -> float:
    """Return the chance of a split at least as uneven as this one: chi-squared with one degree of freedom."""
    total = sum(users.values())
    if not total:
        return 1.0
    expected = {"champion": total * (1 - share), "challenger": total * share}
    distance = sum((users[arm] - expected[arm]) ** 2 / expected[arm] for arm in ARMS)
    return erfc(sqrt(distance / 2))


def _looks(config: PromoteConfig, days: Sequence[Day]) -> list[Look]:
    names = list(dict.fromkeys([config.metric, *config.guards]))
    counts = [
        number >= config.min_days and min(day.users.values()) >= config.min_users for number, day in enumerate(days, 1)
    ]
    found = {name: [_estimate(config, day, name) for day in days] for name in names}
    for name, estimates in found.items():
        places = [place for place, each in enumerate(estimates) if each is not None and counts[place]]
        cut = narrowed([each for place in places if (each := estimates[place]) is not None])
        found[name] = [dict(zip(places, cut, strict=True)).get(place, each) for place, each in enumerate(estimates)]
    return [
        Look(
            day=day.day,
            users=day.users,
            counts=counts[place],
            estimates={name: each for name in names if (each := found[name][place]) is not None},
        )
        for place, day in enumerate(days)
    ]


def _estimate(config: PromoteConfig, day: Day, name: str) -> Estimate | None:
    rates = day.rates.get(name, {})
    if any(arm not in rates for arm in ARMS):
        return None
    given = {"expected": config.expected_lift, "alpha": config.false_alarms}
    return estimate(rates["champion"], rates["challenger"], **given)


def _split_problem(users: Mapping[Arm, int], split: float, crossed: int, share: float) -> str | None:
    total = sum(users.values()) + crossed
    if crossed > _MOST_CROSSED * total:
        what = f"{crossed:,} of {total:,} users were found in both arms"
        return f"{what}: serve.challenger.share changed, or differs between servers; start again with promote.since"
    if split < _SPLIT_ALARM:
        seen = users["challenger"] / max(1, sum(users.values()))
        total = sum(users.values())
        what = f"{seen:.1%} of {total:,} users are in the challenger's arm, not {share:.1%} (p = {split:.1g})"
        return f"{what}: exposures are missing, or serve.challenger.share differs between servers and this command"
    return None


def _judged(config: PromoteConfig, looks: Sequence[Look]) -> tuple[Outcome, str]:
    """Return the outcome of the last look."""
    waits = _too_early(config, looks)
    if waits is not None:
        return "collect", waits
    found = looks[-1].estimates
    main = found[config.metric]
    said = f"{NAMES[config.metric]} {_lift(main)}"
    if main.high < 0:
        return "drop", f"the challenger is worse: {said}"
    for name, margin in config.guards.items():
        if name in found and found[name].high < -margin:
            return "drop", f"the challenger is worse by more than {margin:.1%}: {NAMES[name]} {_lift(found[name])}"
    if main.low <= 0:
        return "collect", f"not decided yet: {said}"
    for name, margin in config.guards.items():
        if name not in found or found[name].low <= -margin:
            seen = _lift(found[name]) if name in found else "nothing was counted"
            return "collect", f"better: {said}; but {NAMES[name]} may have fallen by {margin:.1%} or more: {seen}"
    return "promote", f"the challenger is better: {said}"


def _too_early(config: PromoteConfig, looks: Sequence[Look]) -> str | None:
    """Return why the last look cannot decide anything, whatever its estimates."""
    look = looks[-1]
    if not look.counts:
        needed = f"{config.min_days} days and {config.min_users:,} users per arm are needed"
        return f"{len(looks)} days, {min(look.users.values()):,} users in the smaller arm: {needed}"
    if config.metric not in look.estimates:
        return f"nothing was counted for the {NAMES[config.metric]} in one of the arms"
    if any(each.low > each.high for each in look.estimates.values()):
        return "the lift has changed over the days: intervals of early and late looks do not overlap"
    return None


def _lift(found: Estimate) -> str:
    rates = f"{found.champion:.2%} -> {found.challenger:.2%}"
    return f"{rates}, lift {found.lift:+.1%} ({found.low:+.1%} to {found.high:+.1%})"
