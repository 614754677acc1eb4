"""A confidence sequence for the ratio of two rates: intervals at every look that hold simultaneously.

A look at a test is an estimate of theta = log(rate of the challenger / rate of the champion), with its variance v over
all data so far. In large samples, S = theta_hat / v behaves like a Brownian motion with drift theta in the information
I = 1 / v: the canonical joint distribution of interim estimates
(Jennison and Turnbull 1997; Scharfstein, Tsiatis and Robins 1997).

Under theta = 0 the mixture of likelihood ratios over a normal prior of theta with mean 0 and variance tau^2,

    L = (1 + tau^2 I)^(-1/2) exp(S^2 / (2 (I + 1 / tau^2))),

is a martingale, so the chance that it ever reaches 1 / alpha is at most alpha (Ville 1939). Solved for theta,

    |theta_hat - theta| <= v sqrt((1 / v + 1 / tau^2) log((1 + tau^2 / v) / alpha^2))

holds at all looks at once with a chance of at least 1 - alpha, whenever and however often one looks and stops: Robbins'
mixture, as in the mixture sequential probability ratio test (Johari, Koomen, Pekelis and Walsh 2022) and in asymptotic
confidence sequences (Howard, Ramdas, McAuliffe and Sekhon 2021; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024).

Observations are users, not impressions: v comes from sums over all answers to a user (see `daily`), so it includes the
correlation within a user. A user who returns adds to their own sums, and the chance variation of the same users stays
in every later estimate. So later estimates are more alike than under the canonical distribution, not less.
"""

from collections.abc import Sequence
from math import exp, log, sqrt

import msgspec

from elcrec.monitoring.daily import Ratio

_MOST = 50.0
"""Largest end of an interval of theta; with very few clicks, its exponential would overflow."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The estimate of a rate's lift at a look.

    Attributes:
        champion: rate of the champion.
        challenger: rate of the challenger.
        lift: challenger / champion - 1.
        low: lower end of the confidence sequence of the lift.
        high: upper end of it.
    """

    champion: float
    challenger: float
    lift: float
    low: float
    high: float


def half_width(variance: float, *, tau: float, alpha: float) -> float:
    """Return half the width of the confidence sequence of theta, given the variance of the estimate."""
    return variance * sqrt((1 / variance + 1 / tau**2) * log((1 + tau**2 / variance) / alpha**2))


def estimate(champion: Ratio, challenger: Ratio, *, expected: float, alpha: float) -> Estimate | None:
    """Return the lift at one look, `None` if a rate is 0 or has no variance.

    Args:
        champion: rate and variance over users.
        challenger: the same over other users.
        expected: the lift for which the sequence is narrowest at about the time when it can be distinguished from 0.
        alpha: chance that the sequence ever misses the true lift.
    """
    if champion.value <= 0 or challenger.value <= 0:
        return None
    theta = log(challenger.value / champion.value)
    variance = sum(each.variance / each.value**2 for each in (champion, challenger))
    if variance <= 0:
        return None
    half = half_width(variance, tau=log(1 + expected), alpha=alpha)
    return Estimate(
        champion=champion.value,
        challenger=challenger.value,
        lift=exp(theta) - 1,
        low=exp(theta - half) - 1,
        high=exp(min(theta + half, _MOST)) - 1,
    )


def narrowed(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Intersect each interval with all earlier ones, which is valid because they hold simultaneously."""
    low, high, found = -1.0, float("inf"), []
    for each in estimates:
        low, high = max(low, each.low), min(high, each.high)
        found.append(msgspec.structs.replace(each, low=low, high=high))
    return found
