"""Counterfactual estimates for answers with several places, weighted by the attention that each place gets.

The probability of a click on a shown item is modelled as the product of the attention to its place and the user's
interest in the item, independent of the other items (the position-based model). The weight of a shown item is then the
attention that the challenger would give it divided by the attention that the champion gives it, each summed over all
places (Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, KDD 2018). So an item that the challenger puts third
is judged also by its clicks in the first or fifth place.

Axes: `A` answers, `N` shown items, `P` places, `G` groups of items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elcrec.evaluation.bootstrap import Estimate
from elcrec.evaluation.counterfactual import (
    FloatArray,
    doubly_robust,
    effective_draws,
    inverse_propensity,
    mean_of,
    self_normalized,
)

Ints = npt.NDArray[np.int64]
_FOLDS = 5
_PRIOR_CLICKS = 10.0
"""Number of pseudo-clicks at the mean rate added to each place and each group of items, to smooth small counts."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The shown items and the clicks on them.

    Attributes:
        clicked: 1 if an event followed from the shown item, [N].
        place: its place, from 0, [N].
        explored: whether it was drawn at random, [N].
        answer: its answer, an index of the rows below, [N].
        group: its group by the ranks that the two models give it, a number below G, [N].
        logged_NP: the champion's chance to show this item at each place.
        target_NP: the challenger's chance to do so.
        user: user of each answer, numbers from 0, [A].
        mass_AGP: probability mass of the challenger's answer at each place and in each group, over items that the
            champion could have shown.
    """

    clicked: FloatArray
    place: Ints
    explored: npt.NDArray[np.bool_]
    answer: Ints
    group: Ints
    logged_NP: FloatArray
    target_NP: FloatArray
    user: Ints
    mass_AGP: FloatArray


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Clicks per shown item, with intervals by user.

    Attributes:
        logged: clicks of the champion's answers.
        ips: estimate for the challenger by inverse propensities.
        snips: the same, self-normalized.
        doubly_robust: the same, with a model of clicks in addition.
        difference: doubly robust estimate of challenger minus champion on the same answers.
        effective: effective number of shown items (Kish).
        reached: share of the challenger's shown items that the champion could have shown; the rest counts as never
            clicked.
        attention: attention to each place, 1 on average, [P].
    """

    logged: Estimate
    ips: Estimate
    snips: Estimate
    doubly_robust: Estimate
    difference: Estimate
    effective: float
    reached: float
    attention: list[float]


def estimate(places: Places, *, confidence: float) -> Estimates:
    """Make all estimates for the challenger.

    Raises:
        UserError: the challenger would have shown none of the logged items.
    """
    look_P = attention(places)
    sizes_A = np.bincount(places.answer, minlength=len(places.user))
    owner, share_N = places.user[places.answer], 1 / sizes_A[places.answer]
    logged, target = places.logged_NP @ look_P, places.target_NP @ look_P
    wanted_GN = _wanted(places, look_P, owner)
    look_N = look_P[places.place]
    seen_AG = places.mass_AGP @ look_P
    expected = np.einsum("ng,gn->n", seen_AG[places.answer], wanted_GN) * share_N
    predicted = wanted_GN[places.group, np.arange(len(owner))] * look_N
    log = (places.clicked, logged, target)
    given: dict[str, Any] = {"clusters": owner, "confidence": confidence}
    values = expected + target / logged * (places.clicked - predicted)
    reached = seen_AG.sum(1)[places.answer] * share_N
    return Estimates(
        logged=mean_of(places.clicked, **given),
        ips=inverse_propensity(*log, **given),
        snips=self_normalized(*log, attention=look_N, reached=reached, **given),
        doubly_robust=doubly_robust(*log, predicted=predicted, expected=expected, **given),
        difference=mean_of(values - places.clicked, **given),
        effective=effective_draws(logged, target),
        reached=float(places.mass_AGP.sum() / len(places.clicked)),
        attention=look_P.tolist(),
    )


def attention(places: Places) -> FloatArray:
    """Return the attention to each place, [P], from clicks on explored items, which are alike in all places."""
    count = places.logged_NP.shape[1]
    shown_P = np.bincount(places.place[places.explored], minlength=count)
    clicks_P = np.bincount(places.place[places.explored], places.clicked[places.explored], minlength=count)
    if not clicks_P.any():
        return np.ones(count)
    mean = clicks_P.sum() / shown_P.sum()
    look_P: FloatArray = (clicks_P + _PRIOR_CLICKS) / (shown_P * mean + _PRIOR_CLICKS)
    return look_P


def _wanted(places: Places, look_P: FloatArray, owner: Ints) -> FloatArray:
    """Return for each shown item the clicks per attention of each group, from the other users, [G, N]."""
    groups = places.mass_AGP.shape[1]
    fold, keys = owner % _FOLDS, (owner % _FOLDS) * groups + places.group
    clicks_FG = np.bincount(keys, places.clicked, minlength=_FOLDS * groups).reshape(_FOLDS, groups)
    looks_FG = np.bincount(keys, look_P[places.place], minlength=_FOLDS * groups).reshape(_FOLDS, groups)
    others_FG, looked_FG = clicks_FG.sum(0) - clicks_FG, looks_FG.sum(0) - looks_FG
    mean_F1 = others_FG.sum(1, keepdims=True) / np.maximum(looked_FG.sum(1, keepdims=True), 1.0)
    prior_F1 = _PRIOR_CLICKS / np.maximum(mean_F1, 1e-9)
    wanted_FG = (others_FG + prior_F1 * mean_F1) / (looked_FG + prior_F1)
    wanted_GN: FloatArray = wanted_FG[fold].T
    return wanted_GN
