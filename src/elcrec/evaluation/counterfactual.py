"""What another policy would have earned, from the log of one that left places to chance.

Axis: `N` logged draws. Each has the propensity with which the logging policy drew what it showed, the probability with
which the other policy would have shown the same, and the reward that came of it. Draws of one user are not independent;
where `clusters` says whose each is, intervals take users as the observations.
"""

from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from elcrec.errors import UserError
from elcrec.evaluation.bootstrap import Estimate

FloatArray = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.integer] | None
_CONFIDENCE = 0.95


def inverse_propensity(
    rewards: FloatArray,
    propensities: FloatArray,
    targets: FloatArray,
    *,
    clusters: Clusters = None,
    confidence: float = _CONFIDENCE,
) -> Estimate:
    """Estimate the other policy's mean reward by IPS (Horvitz and Thompson 1952): unbiased, of large variance.

    Args:
        rewards: what came of each draw, [N].
        propensities: chance with which the logging policy drew it, above 0, [N].
        targets: chance with which the other policy would have, [N].
        clusters: whose each draw is, numbers from 0, [N]; `None`: all are independent.
        confidence: level of the normal interval.

    Raises:
        UserError: nothing was logged, the lengths differ, or a propensity is not above 0.
    """
    weights = _weights(propensities, targets, rewards)
    return mean_of(weights * rewards, clusters=clusters, confidence=confidence)


def self_normalized(
    rewards: FloatArray,
    propensities: FloatArray,
    targets: FloatArray,
    *,
    attention: FloatArray | float = 1.0,
    reached: FloatArray | float = 1.0,
    clusters: Clusters = None,
    confidence: float = _CONFIDENCE,
) -> Estimate:
    """Estimate as `inverse_propensity`, divided by the mean weight (SNIPS, Swaminathan and Joachims 2015).

    It has a small bias, far less variance, and never leaves the range of the rewards. The interval is that of the delta
    method.

    Args:
        rewards: as in `inverse_propensity`, [N].
        propensities: as there, [N].
        targets: as there, [N].
        attention: factor of each draw's weight in the mean, such as how much its place is looked at, [N].
        reached: what the mean weight is expected to be: below 1 where the logging policy could not have drawn all that
            the other policy shows, [N].
        clusters: as there.
        confidence: level of the normal interval.

    Raises:
        UserError: as `inverse_propensity`, or no draw is one that the other policy could have made.
    """
    weights = _weights(propensities, targets, rewards)
    found, wanted = weights * attention, np.broadcast_to(np.asarray(reached, np.float64), rewards.shape)
    if not found.any():
        raise UserError("the other policy would have shown nothing of the log", fix="log with more exploration")
    ratio = float(weights @ rewards / found.sum())
    mean = ratio * float(wanted.mean())
    # The ratio's error to first order, and beside it that of what is expected of the weights.
    errors = (weights * rewards - ratio * found) * wanted.mean() / found.mean() + ratio * wanted
    spread = mean_of(errors, clusters=clusters, confidence=confidence)
    return Estimate(mean=mean, low=mean + spread.low - spread.mean, high=mean + spread.high - spread.mean)


def doubly_robust(
    rewards: FloatArray,
    propensities: FloatArray,
    targets: FloatArray,
    *,
    predicted: FloatArray,
    expected: FloatArray,
    clusters: Clusters = None,
    confidence: float = _CONFIDENCE,
) -> Estimate:
    """Estimate with a model of rewards, corrected by IPS where it errs (Dudik, Langford and Li 2011).

    It is unbiased if either the propensities or the model are right, and the better the model, the less it varies.

    Args:
        rewards: as in `inverse_propensity`, [N].
        propensities: as there, [N].
        targets: as there, [N].
        predicted: the model's reward of what was shown, made without these draws, [N].
        expected: the model's mean reward under the other policy in the same situation, [N].
        clusters: as there.
        confidence: level of the normal interval.

    Raises:
        UserError: as `inverse_propensity`.
    """
    weights = _weights(propensities, targets, rewards, predicted, expected)
    return mean_of(expected + weights * (rewards - predicted), clusters=clusters, confidence=confidence)


def effective_draws(propensities: FloatArray, targets: FloatArray) -> float:
    """Return how many equally weighted draws would tell as much (Kish 1965): far below N, no estimate is to be trusted.

    Raises:
        UserError: as `inverse_propensity`.
    """
    weights = _weights(propensities, targets)
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def mean_of(values: FloatArray, *, clusters: Clusters = None, confidence: float = _CONFIDENCE) -> Estimate:
    """Return the mean with its normal interval; of clusters the sums are the observations."""
    mean, z = float(values.mean()), NormalDist().inv_cdf((1 + confidence) / 2)
    sums = values - mean if clusters is None else np.bincount(clusters, values - mean)
    groups = len(sums) if clusters is None else len(np.unique(clusters))
    if groups == 1:
        return Estimate(mean=mean, low=float("-inf"), high=float("inf"))
    half = z * sqrt(groups / (groups - 1) * float(sums @ sums)) / len(values)
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def _weights(propensities: FloatArray, targets: FloatArray, *others: FloatArray) -> FloatArray:
    if not len(propensities) or any(len(each) != len(propensities) for each in (targets, *others)):
        raise UserError("not as many rewards as propensities, or none", fix="give one of each for every logged draw")
    if not (propensities > 0).all():
        raise UserError("a propensity is not above 0", fix="leave out what the logging policy could not have shown")
    weights: FloatArray = targets / propensities
    return weights
