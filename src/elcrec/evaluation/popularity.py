"""Popularity: the baseline that ranks by training count, and the popularity bias of recommendations.

Axes: `N` users, `V` items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.evaluation.metrics import MISS

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]
_BLOCK_USERS, _COUNTED_USERS = 256, 65_536


def training_counts(data: SequenceData) -> npt.NDArray[np.int64]:
    """Count each item's training interactions, [V + 1]; entry 0 is padding."""
    counts = np.zeros(data.num_items + 1, np.int64)
    for start in range(0, data.num_users, _COUNTED_USERS):
        users = slice(start, min(start + _COUNTED_USERS, data.num_users))
        training = data.sequences.part(users).head(data.train_end[users])
        counts += np.bincount(training.values, minlength=len(counts))
    return counts


def rank_by_popularity(
    counts: npt.NDArray[np.int64],
    excluded: Ragged,
    target_items: npt.NDArray[np.int64],
    *,
    block_users: int | None = None,
) -> npt.NDArray[np.int32]:
    """Rank each target by training count under the protocol of `ranking.rank_targets`, [N].

    No score matrix is needed: the rank is the number of items at least as popular as the target, minus the excluded
    ones.

    Args:
        counts: training count of each item, [V + 1]; entry 0 is ignored.
        excluded: items that are not ranked, N rows of indices.
        target_items: the item to find, [N].
        block_users: users ranked at a time; `None` takes a number suitable for a CPU, where this always runs.
    """
    block_users = block_users or _BLOCK_USERS
    ranks = np.empty(len(target_items), np.int32)
    ascending = np.sort(counts[1:])
    for start in range(0, len(ranks), block_users):
        rows = np.arange(start, min(start + block_users, len(ranks)))
        ranks[rows] = _rank_block(counts, ascending, excluded.take(rows), target_items[rows])
    return ranks


def _rank_block(
    counts: npt.NDArray[np.int64],
    ascending: npt.NDArray[np.int64],
    histories: Ragged,
    targets: npt.NDArray[np.int64],
) -> IntArray:
    rows, items = distinct_pairs(histories, len(counts))
    target_counts = counts[targets]
    at_least = len(ascending) - np.searchsorted(ascending, target_counts)
    excluded = np.bincount(rows[counts[items] >= target_counts[rows]], minlength=len(targets))
    repeats = rows[items == targets[rows]]
    ranks = at_least - excluded
    ranks[repeats] = MISS
    return ranks


def distinct_pairs(rows: Ragged, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each distinct (row, value) once, sorted; values are below `size`."""
    codes = rows.owners * size + rows.values
    row, value = np.divmod(np.unique(codes), size)
    return row, value


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The exposure of items over all users of a recommender.

    Attributes:
        coverage: share of the catalogue that is recommended to at least one user.
        gini: inequality of exposure over the catalogue; 0 is even, 1 is a single item.
        mean_count: mean training count of a recommended item.
        mean_percentile: mean popularity percentile of a recommended item, 0 to 1.
    """

    coverage: float
    gini: float
    mean_count: float
    mean_percentile: float


def exposure(items: IntArray, counts: npt.NDArray[np.int64]) -> Exposure:
    """Measure the exposure of shown items, in any shape; index 0 (no item) is ignored.

    Args:
        items: item indices, one per time that an item is shown.
        counts: training count of each item, [V + 1].
    """
    shown = items[items > 0]
    times = np.bincount(shown, minlength=len(counts))[1:]
    percentile = popularity_percentile(counts)
    return Exposure(
        coverage=float(np.count_nonzero(times) / len(times)),
        gini=gini(times),
        mean_count=float(counts[shown].mean()) if len(shown) else 0.0,
        mean_percentile=float(percentile[shown].mean()) if len(shown) else 0.0,
    )


def popularity_percentile(counts: npt.NDArray[np.int64]) -> FloatArray:
    """Return the share of the catalogue less popular than each item, ties counted half, [V + 1]; padding is 0."""
    ascending = np.sort(counts[1:])
    below, upto = np.searchsorted(ascending, counts[1:]), np.searchsorted(ascending, counts[1:], side="right")
    return np.concatenate(([0.0], (below + upto) / (2 * len(ascending))))


def gini(amounts: IntArray) -> float:
    """Return the Gini coefficient of non-negative amounts, 0 if all are 0."""
    ordered = np.sort(amounts).astype(np.float64)
    total, size = ordered.sum(), len(ordered)
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))
