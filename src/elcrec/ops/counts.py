"""Counts of the items of histories, for what they add to scores.

Axes: `N` items of all rows, `V` items.
"""

import numpy as np
import numpy.typing as npt

from elcrec.ops.neighbours import Floats, Ints, Weights

_FADING = 0.5
"""What an item counts for popularity, relative to the item after it in its row."""


def followers(items_N: npt.NDArray[np.integer], offsets: Ints, num_items: int) -> Weights:
    """Weigh each pair of an item and one that follows it directly, by log(1 + times that it does).

    Args:
        items_N: items from 1 to V, row after row, oldest first.
        offsets: start of each row, and the end of the last.
        num_items: V.
    """
    rows_N = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    same_row = rows_N[1:] == rows_N[:-1]
    width = num_items + 1
    pairs, times = np.unique(
        items_N[:-1][same_row].astype(np.int64) * width + items_N[1:][same_row], return_counts=True
    )
    items, targets = np.divmod(pairs, width)
    return Weights(items, targets, np.log1p(times).astype(np.float32))


def late_popularity(items_N: npt.NDArray[np.integer], offsets: Ints, num_items: int) -> Floats:
    """Return log(1 + popularity) of each item, less the mean of all items, [V + 1]; 0 for padding.

    The popularity is the number of times that the item occurs, of which an occurrence with `a` items after it counts
    in proportion to 0.5^a: the ends of histories are nearest in time to what is asked. It adds up to N.

    Args:
        items_N: items from 1 to V, row after row, oldest first.
        offsets: start of each row, and the end of the last.
        num_items: V.
    """
    ages_N = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(items_N))
    counts_N = _FADING**ages_N
    popularity_V = np.bincount(items_N, counts_N, minlength=num_items + 1) * (len(items_N) / max(counts_N.sum(), 1))
    logarithms_V = np.log1p(popularity_V)
    logarithms_V[1:] -= logarithms_V[1:].mean()
    logarithms_V[0] = 0
    late_V: Floats = logarithms_V.astype(np.float32)
    return late_V
