"""The limits of checks: how far from the reference a day is bad, derived from a stated rate of false alarms.

`false_alarms` is the chance of any alarm in `HORIZON` days in which nothing changes. It is divided twice by Bonferroni,
which makes no assumption on how checks depend on each other: first evenly over the checks, then the part of the check
of intents evenly over the intents. The part of one test is its budget, which determines its limit.

An alarm is N bad days among the last M judged ones. With a chance p of a bad day, independent from day to day, the
chance A(p) that this occurs in the horizon is computed exactly, by a Markov chain over the last M - 1 days.

Days are not independent, however: all are compared with the same R reference days. Let a day's value be normal, with
the
variance 1 of a day (users and days together). The mean of the reference has an error a, normal with variance 1 / R, and
the standard deviation is estimated as s, where s^2 is chi-squared with R - 1 degrees of freedom over R - 1. Given a
and s the days are independent, and a day is bad with the chance

    p(a, s) = P(|e - a| > c s sqrt(1 + 1 / R)),    e standard normal (one side only where a check has one),

so the chance of an alarm is E[A(p(a, s))] over both. The limit c is the value at which this equals the budget. With N =
M = 1 and a horizon of one day, c is the quantile of Student's t with R - 1 degrees of freedom: a prediction interval.
"""

from functools import cache
from math import erfc, sqrt

import numpy as np
import numpy.typing as npt

HORIZON = 30
"""Number of days to which the stated rate applies."""
_POINTS = 48
_LARGEST = 200.0

Array = npt.NDArray[np.float64]


@cache
def limit(budget: float, *, reference_days: int, bad_days: int, of_days: int, sides: int) -> float:
    """Return c: the number of standard errors from the reference at which a day is bad.

    Args:
        budget: chance of an alarm of this test in the horizon if nothing changes.
        reference_days: R, at least 2.
        bad_days: N.
        of_days: M, at least N.
        sides: 2 if a rise is as bad as a fall, else 1.
    """
    low, high = 0.0, _LARGEST
    while high - low > 1e-4:  # noqa: PLR2004 - far finer than the accuracy of any estimate
        middle = (low + high) / 2
        given = {"reference_days": reference_days, "bad_days": bad_days, "of_days": of_days, "sides": sides}
        low, high = (middle, high) if alarm_rate(middle, **given) > budget else (low, middle)
    return high


def alarm_rate(
    threshold: float, *, reference_days: int, bad_days: int, of_days: int, sides: int, horizon: int = HORIZON
) -> float:
    """Return the chance of an alarm in the horizon (see the module); the arguments are those of `limit`."""
    offsets = (np.arange(_POINTS) + 0.5) / _POINTS * 12 - 6
    offset_weights = np.exp(-(offsets**2) / 2)
    scales, scale_weights = _scales(reference_days - 1)
    beyond = threshold * scales[None, :] * sqrt(1 + 1 / reference_days)
    offset = offsets[:, None] / sqrt(reference_days)
    bad = _above(beyond + offset) + (_above(beyond - offset) if sides > 1 else 0)
    rates = _runs(bad.ravel(), bad_days, of_days, horizon).reshape(bad.shape)
    weights = offset_weights[:, None] * scale_weights[None, :]
    return float((rates * weights).sum() / weights.sum())


def _scales(freedom: int) -> tuple[Array, Array]:
    """Return values of sqrt(chi2 / freedom), evenly spaced in their logarithms, and their probabilities."""
    reach = 6 / sqrt(freedom)
    logs = np.linspace(-reach - 30 / freedom, reach, 4 * _POINTS)
    scales = np.exp(logs)
    exponent = freedom * (logs - scales**2 / 2)
    weights = np.exp(exponent - exponent.max())
    kept = weights > 1e-12  # noqa: PLR2004 - values this unlikely do not matter
    return scales[kept], weights[kept]


def _above(z: Array) -> Array:
    """Return the chance that a standard normal is above z."""
    chances = [erfc(value / sqrt(2)) / 2 for value in z.ravel()]
    return np.array(chances).reshape(z.shape)


def _runs(bad: Array, bad_days: int, of_days: int, horizon: int) -> Array:
    """Return the chance of `bad_days` bad days among `of_days` consecutive days, anywhere in the horizon."""
    states = 1 << (of_days - 1)
    quiet = np.zeros((states, len(bad)))
    quiet[0] = 1.0
    for _ in range(horizon):
        after = np.zeros_like(quiet)
        for state in range(states):
            for outcome, chance in ((0, 1 - bad), (1, bad)):
                window = state << 1 | outcome
                if window.bit_count() < bad_days:
                    after[window & (states - 1)] += quiet[state] * chance
        quiet = after
    alarms: Array = 1 - quiet.sum(axis=0)
    return alarms
