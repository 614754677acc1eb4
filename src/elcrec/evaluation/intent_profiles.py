"""Differences between intents: profiles of their users, their similarity, and moves between them.

Axes: `N` users, `D` hidden size, `K` intents, `C` chosen intents.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.evaluation.metrics import gains

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]


def profile_intents(intents: IntArray, ranks: IntArray, lengths: IntArray, num_intents: int) -> pd.DataFrame:
    """Return a profile of each intent's users, one row per intent, empty for an intent without users.

    Columns: means of `hr@20`, `ndcg@20` and `history_length`, and `ndcg@20_error`, the standard error.

    Args:
        intents: each user's intent, [N].
        ranks: rank of each user's target, [N].
        lengths: length of each user's history, [N].
        num_intents: number of intents (K).
    """
    gain = gains(ranks)
    table = pd.DataFrame({"hr@20": gain["hr@20"], "ndcg@20": gain["ndcg@20"], "history_length": lengths})
    groups = table.groupby(intents)
    errors = groups["ndcg@20"].sem().rename("ndcg@20_error")
    return groups.mean().join(errors).reindex(range(num_intents))


def largest(sizes: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return the used intents, largest first, at most `most`."""
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return [int(intent) for intent in order[:most]]


def moves(before: IntArray, after: IntArray, chosen: Sequence[int]) -> FloatArray:
    """Return to which intents the users of each chosen intent move, [C, C + 1]; a row sums to 1, or is NaN.

    Args:
        before: each user's intent at one time, [N].
        after: their intent later, [N].
        chosen: intents; all others are the last column.
    """
    places = {intent: place for place, intent in enumerate(chosen)}
    row, column = (np.array([places.get(int(intent), len(chosen)) for intent in labels]) for labels in (before, after))
    counts = np.zeros((len(chosen) + 1, len(chosen) + 1))
    np.add.at(counts, (row.astype(int), column.astype(int)), 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts[:-1] / counts[:-1].sum(axis=1, keepdims=True))


def mean_cosines(vectors: npt.NDArray[np.float32], intents: IntArray, chosen: Sequence[int]) -> FloatArray:
    """Return the cosines between the mean vectors of the chosen intents' users, [C, C]; NaN without users.

    Args:
        vectors: user vectors, [N, D].
        intents: each user's intent, [N].
        chosen: intents.
    """
    means = np.full((len(chosen), vectors.shape[1]), np.nan)
    for place, intent in enumerate(chosen):
        if (own := intents == intent).any():
            means[place] = vectors[own].mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means @ means.T)


def principal_axes(
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean, [D], and the first two principal axes, [2, D]; zeros for axes that do not exist.

    The sign of an axis is chosen so that its largest entry is positive.
    """
    middle = vectors.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(vectors - middle, full_matrices=False)
    axes_2D = np.zeros((2, vectors.shape[1]))
    axes_2D[: len(axes)] = axes[:2]
    extreme = axes_2D[range(2), np.abs(axes_2D).argmax(axis=1)]
    return middle, axes_2D * np.where(extreme < 0, -1, 1)[:, None]
