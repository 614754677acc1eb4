"""Exact top-k with a unique answer: among equal scores, the lower index comes first.

It uses NumPy, because for the few rows of a request the overhead of PyTorch's calls would dominate.

Axes: `B` rows, `V` columns, `C` candidates of all rows, `k` best columns.
"""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]

_TILE = 64
_LOWEST = np.finfo(np.float32).min


def top_k(scores_BV: Scores, k: int) -> tuple[Scores, Columns]:
    """Return the k best scores of each row, best first, and their columns, [B, k] each.

    If fewer than k scores are finite, the remaining places have -inf and column 0.

    Args:
        scores_BV: scores, -inf to exclude a column.
        k: number of columns, at most V.
    """
    rows, width = scores_BV.shape
    places = np.flatnonzero(scores_BV >= _bounds(scores_BV, k)[:, None])
    row_C, column_C = np.divmod(places, width)
    value_C = scores_BV.ravel()[places]
    # The sort is stable, so that equal scores stay in the order of their columns.
    order = np.lexsort((-value_C, row_C))
    rank_C = np.arange(len(order)) - np.searchsorted(row_C, np.arange(rows))[row_C]
    kept = rank_C < k
    chosen, where = order[kept], (row_C[kept], rank_C[kept])
    values, columns = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    values[where], columns[where] = value_C[chosen], column_C[chosen]
    return values, columns


def _bounds(scores_BV: Scores, k: int) -> Scores:
    """Return a lower bound of the k best scores of each row, close to the k-th best, [B].

    It is the k-th best of the maxima of tiles, so at least k scores are no lower. A tile is every `tiles`-th column, so
    that maxima are computed over whole vectors.
    """
    rows, width = scores_BV.shape
    tile = min(_TILE, max(1, width // (2 * k)))
    tiles = width // tile
    peaks = scores_BV[:, : tiles * tile].reshape(rows, tile, tiles).max(axis=1)
    bounds: Scores = np.partition(peaks, tiles - k, axis=1)[:, tiles - k]
    return np.maximum(bounds, _LOWEST)
