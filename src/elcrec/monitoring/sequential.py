"""A confidence sequence for the ratio of two rates: an interval at every look, all of which are right at once.

A look at a test is an estimate of theta = log(rate of the challenger / rate of the champion), with its variance v over
all that was seen until then. In large samples it is as if a sum S = theta / v were observed that grows with the
information I = 1 / v like a Brownian motion with drift theta: the canonical joint distribution of interim estimates
(Jennison and Turnbull 1997; Scharfstein, Tsiatis and Robins 1997).

Under theta = 0 the mixture of likelihood ratios over a normal prior of theta with mean 0 and variance tau^2,

    L = (1 + tau^2 I)^(-1/2) exp(S^2 / (2 (I + 1 / tau^2))),

is a martingale, so it reaches 1 / alpha at any look, ever, with a chance of at most alpha (Ville 1939). Solved for
theta,

    |theta_hat - theta| <= v sqrt((1 / v + 1 / tau^2) log((1 + tau^2 / v) / alpha^2))

holds at all looks at once with a chance of at least 1 - alpha, whenever and however often one looks and stops: Robbins'
mixture, as in the mixture sequential probability ratio test (Johari, Koomen, Pekelis and Walsh 2022) and in asymptotic
confidence sequences (Howard, Ramdas, McAuliffe and Sekhon 2021; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024).

Observations are users, not impressions: v comes from sums over all answers to a user (`daily` says how), so whatever
hangs together within a user is in it. A user who comes again adds to their own sums, and the same users' luck stays in
every later estimate; that makes later estimates more alike than the canonical distribution says, not less.
"""

from collections.abc import Sequence
from math import exp, log, sqrt

import msgspec

from elcrec.monitoring.daily import Ratio

_MOST = 50.0
"""Largest end of an interval of theta; with hardly a click it would be more than a number can hold."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a rate of both arms at a look.

    Attributes:
        champion: its rate.
        challenger: its rate.
        lift: challenger / champion - 1.
        low: lower end of the confidence sequence of the lift.
        high: upper end.
    """

    champion: float
    challenger: float
    lift: float
    low: float
    high: float


def half_width(variance: float, *, tau: float, alpha: float) -> float:
    """Return half the width of the confidence sequence of theta at an estimate with this variance."""
    return variance * sqrt((1 / variance + 1 / tau**2) * log((1 + tau**2 / variance) / alpha**2))


def estimate(champion: Ratio, challenger: Ratio, *, expected: float, alpha: float) -> Estimate | None:
    """Return the lift at one look, `None` where a rate is 0 or without any variance.

    Args:
        champion: rate and variance over users.
        challenger: the same, over other users.
        expected: the lift for which the sequence is narrowest about when it can be told from none.
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
    """Return the estimates with each interval cut by all before it: as all are right at once, so is what they share."""
    low, high, found = -1.0, float("inf"), []
    for each in estimates:
        low, high = max(low, each.low), min(high, each.high)
        found.append(msgspec.structs.replace(each, low=low, high=high))
    return found
