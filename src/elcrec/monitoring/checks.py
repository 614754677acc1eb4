"""The checks: how far a day is from its bundle's reference days.

A check compares one number of the day with the same number of the R reference days, whose mean is m and whose sample
variance is s^2. The users of a day explain v of that variance (`daily`); the variation between days is the rest, t^2 =
max(0, s^2 - mean v). The difference has the variance t^2 (1 + 1 / R) + v of the day + v of all reference days together
(where a returning user counts once). So variation between days beyond that of users is taken into account, and a day of
few users has a wide margin. If a day's own v is smaller than that of the reference scaled to the day's trials, for
example on a day without any click, the latter is used. The score of a check is the difference in these standard errors.

A mix of many shares is reduced to one number as well: its distance from the mean of the reference days, in multiples of
the distance that users alone would cause, as a logarithm, so that it is nearly normal. Each reference day is compared
with the other ones.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, log, pi, sqrt

import msgspec
import numpy as np

from elcrec.monitoring.daily import Measured, Ratio

SIDES = {
    "ctr": "fall",
    "conversion": "fall",
    "hit_rate": "fall",
    "cold": "both",
    "overlap": "both",
    "intent": "both",
    "mix": "rise",
    "history": "rise",
    "calibration": "rise",
}
"""Every check that compares a day with the reference, and the directions of change that are bad."""
_TINY = 1e-12

Cells = Callable[[Measured], Mapping[str, Ratio]]


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check on a day.

    Attributes:
        check: its name, one of SIDES.
        cell: the intent, for a check of one intent; otherwise empty.
        value: the day's number.
        reference: the number on the reference days.
        score: the difference in standard errors; positive if the value is higher.
    """

    check: str
    cell: str = ""
    value: float
    reference: float
    score: float

    def beyond(self, limit: float) -> bool:
        """Return whether the day is bad: more than `limit` standard errors away, in a bad direction."""
        worst = {"fall": -self.score, "rise": self.score, "both": abs(self.score)}[SIDES[self.check]]
        return worst > limit


def scores(day: Measured, reference: Sequence[Measured], pooled: Measured) -> list[Score]:
    """Compare a day with the reference days.

    Args:
        day: the day to judge.
        reference: two or more reference days of the same bundle.
        pooled: the reference days together.
    """
    found = []
    for check in ("ctr", "conversion", "hit_rate", "cold", "overlap"):
        taken = [each.ratios[check] for each in (day, *reference, pooled) if check in each.ratios]
        if len(taken) == len(reference) + 2:
            found.append(_score(check, "", taken[0], taken[1:-1], taken[-1]))
    for cell in sorted(pooled.intents.keys() | day.intents.keys(), key=int):
        none = [Ratio(0.0, 0.0, each.answers) for each in (day, *reference, pooled)]
        taken = [each.intents.get(cell, zero) for each, zero in zip((day, *reference, pooled), none, strict=True)]
        found.append(_score("intent", cell, taken[0], taken[1:-1], taken[-1]))
    for check, cells in (("mix", _intents), ("history", _lengths), ("calibration", _deciles)):
        if all(cells(each) for each in (day, *reference)):
            found.append(_distance(check, cells, day, reference))
    return found


def _intents(measured: Measured) -> Mapping[str, Ratio]:
    return measured.intents


def _lengths(measured: Measured) -> Mapping[str, Ratio]:
    return measured.lengths


def _deciles(measured: Measured) -> Mapping[str, Ratio]:
    return measured.deciles


def _score(check: str, cell: str, day: Ratio, reference: Sequence[Ratio], pooled: Ratio) -> Score:
    values = np.array([each.value for each in reference])
    users = float(np.mean([each.variance for each in reference]))
    between = max(0.0, float(values.var(ddof=1)) - users)
    scaled = float(np.mean([each.variance * each.trials for each in reference])) / day.trials
    own = max(day.variance, scaled)
    error = sqrt(between * (1 + 1 / len(reference)) + own + pooled.variance)
    mean = float(values.mean())
    difference = day.value - mean
    score = 0.0 if abs(difference) < _TINY else difference / max(error, _TINY)
    return Score(check=check, cell=cell, value=day.value, reference=mean, score=score)


def _distance(check: str, cells: Cells, day: Measured, reference: Sequence[Measured]) -> Score:
    known = [cells(each) for each in reference]
    apart = np.log([_apart(one, [*known[:place], *known[place + 1 :]]) for place, one in enumerate(known)])
    found, names = log(_apart(cells(day), known)), {name for each in known for name in each}
    # The spread of a mean of so many absolute normal values by chance alone.
    variance = max(float(apart.var(ddof=1)), (pi / 2 - 1) / len(names))
    score = (found - float(apart.mean())) / sqrt(variance * (1 + 1 / len(known)))
    return Score(check=check, value=exp(found), reference=exp(float(apart.mean())), score=score)


def _apart(one: Mapping[str, Ratio], others: Sequence[Mapping[str, Ratio]]) -> float:
    """Return the distance of a mix from the mean of others, in multiples of what users alone would cause.

    The mean absolute value of a normal variable with the variance v is sqrt(2 v / pi).
    """
    none = Ratio(0.0, 0.0, 0.0)
    distance = expected = _TINY
    for name in sorted({name for each in (one, *others) for name in each}):
        rest = [each.get(name, none) for each in others]
        own = one.get(name, none)
        users = sum(each.variance for each in rest) / len(rest)
        distance += abs(own.value - sum(each.value for each in rest) / len(rest)) * _weight(own, rest)
        expected += sqrt(2 / pi * (max(own.variance, users) + users / len(rest))) * _weight(own, rest)
    return distance / expected


def _weight(own: Ratio, rest: Sequence[Ratio]) -> float:
    """Return the weight of a cell: its trials, which are the same for all intents and for all lengths."""
    return own.trials or sum(each.trials for each in rest) / len(rest)
