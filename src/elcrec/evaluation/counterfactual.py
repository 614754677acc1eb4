"""Counterfactual estimates: what another policy would have earned, from the log of a policy that explored.

Axis: `N` logged draws. Each has the propensity with which the logging policy drew the shown item, the probability with
which the other policy would have shown it, and the reward. Draws of one user are not independent; if `clusters` gives
the user of each draw, intervals take users as the observations.
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
    """Estimate the other policy's mean reward by IPS (Horvitz and Thompson 1952): unbiased, with large variance.

    Args:
        rewards: reward of each draw, [N].
        propensities: chance with which the logging policy drew it, above 0, [N].
        targets: chance with which the other policy would have drawn it, [N].
        clusters: user of each draw, numbers from 0, [N]; `None`: all draws are independent.
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

    It has a small bias, far less variance, and stays within the range of the rewards. The interval comes from the delta
    method.

    Args:
        rewards: as in `inverse_propensity`, [N].
        propensities: as there, [N].
        targets: as there, [N].
        attention: factor of each draw's weight in the mean, such as the attention to its place, [N].
        reached: expected mean weight, below 1 if the logging policy could not have drawn everything that the other
            policy shows, [N].
        clusters: as there.
        confidence: level of the normal interval.

    Raises:
        UserError: as `inverse_propensity`, or the other policy could not have made any of the draws.
    """
    weights = _weights(propensities, targets, rewards)
    found, wanted = weights * attention, np.broadcast_to(np.asarray(reached, np.float64), rewards.shape)
    if not found.any():
        raise UserError("the other policy would have shown nothing of the log", fix="log with more exploration")
    ratio = float(weights @ rewards / found.sum())
    mean = ratio * float(wanted.mean())
    # The ratio's first-order error, and in addition the error of the expected weights.
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

    It is unbiased if the propensities or the model are right, and the better the model, the smaller its variance.

    Args:
        rewards: as in `inverse_propensity`, [N].
        propensities: as there, [N].
        targets: as there, [N].
        predicted: the model's reward for the shown item, fitted without these draws, [N].
        expected: the model's mean reward under the other policy in the same context, [N].
        clusters: as there.
        confidence: level of the normal interval.

    Raises:
        UserError: as `inverse_propensity`.
    """
    weights = _weights(propensities, targets, rewards, predicted, expected)
    return mean_of(expected + weights * (rewards - predicted), clusters=clusters, confidence=confidence)


def effective_draws(propensities: FloatArray, targets: FloatArray) -> float:
    """Return the effective number of draws (Kish 1965); if it is far below N, no estimate can be trusted.

    Raises:
        UserError: as `inverse_propensity`.
    """
    weights = _weights(propensities, targets)
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def mean_of(values: FloatArray, *, clusters: Clusters = None, confidence: float = _CONFIDENCE) -> Estimate:
    """Return the mean with its normal interval; with clusters, their sums are the observations."""
    mean, z = float(values.mean()), NormalDist().inv_cdf((1 + confidence) / 2)
    sums = values - mean if clusters is None else np.bincount(clusters, values - mean)
    groups = len(sums) if clusters is None else len(np.unique(clusters))
    if groups == 1:
        return Estimate(mean=mean, low=float("-inf"), high=float("inf"))
    half = z * sqrt(groups / (groups - 1) * float(sums @ sums)) / len(values)
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def _weights(propensities: FloatArray, targets: FloatArray, *others: FloatArray) -> FloatArray:
    if not len(propensities) or any(len(each) != len(propensities) for each in (targets, *others)):
        raise UserError(
            "the numbers of rewards and propensities differ or are 0",
            fix="give one reward and one propensity per logged draw",
        )
    if not (propensities > 0).all():
        raise UserError(
            "a propensity is not above 0", fix="leave out draws that the logging policy could not have made"
        )
    weights: FloatArray = targets / propensities
    return weights
