"""Exact top-k with one answer only: among equal scores the lower index comes first.

In NumPy: for the few rows of a request PyTorch's calls would cost more than the work.

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

    Where fewer than k scores are finite, the places left hold -inf and column 0.

    Args:
        scores_BV: -inf takes a column out.
        k: at most V.
    """
    rows, width = scores_BV.shape
    places = np.flatnonzero(scores_BV >= _bounds(scores_BV, k)[:, None])
    row_C, column_C = np.divmod(places, width)
    value_C = scores_BV.ravel()[places]
    # Stable, so that equal scores stay in the order of their columns.
    order = np.lexsort((-value_C, row_C))
    rank_C = np.arange(len(order)) - np.searchsorted(row_C, np.arange(rows))[row_C]
    kept = rank_C < k
    chosen, where = order[kept], (row_C[kept], rank_C[kept])
    values, columns = np.full((rows, k), -np.inf, np.float32), np.zeros((rows, k), np.int64)
    values[where], columns[where] = value_C[chosen], column_C[chosen]
    return values, columns


def _bounds(scores_BV: Scores, k: int) -> Scores:
    """Return what the k best scores of a row are not below, close to the k-th best, [B].

    The k-th best of the maxima of tiles: as many scores are no lower. A tile is every `tiles`-th column, so that
    maxima are taken over whole vectors.
    """
    rows, width = scores_BV.shape
    tile = min(_TILE, max(1, width // (2 * k)))
    tiles = width // tile
    peaks = scores_BV[:, : tiles * tile].reshape(rows, tile, tiles).max(axis=1)
    bounds: Scores = np.partition(peaks, tiles - k, axis=1)[:, tiles - k]
    return np.maximum(bounds, _LOWEST)
