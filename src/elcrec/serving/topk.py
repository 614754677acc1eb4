"""Exact top-k with one answer only: among equal scores the lower index comes first.

In NumPy: for the few rows of a request PyTorch's calls would cost more than the work.

Axes: `B` rows, `V` columns, `C` candidate columns.
"""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]

_TILE = 64


def top_k(scores_BV: Scores, k: int) -> tuple[Scores, Columns]:
    """Return the k best scores of each row, best first, and their columns, [B, k] each.

    A partition alone breaks ties in no stated order. Columns with a score of -inf come last, in any order.
    """
    values, columns = _best(scores_BV, min(k + 1, scores_BV.shape[1]))
    order = np.lexsort((columns, -values))
    values, columns = np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)
    edge = values[:, k - 1]
    tied_at_the_edge = (edge == values[:, -1]) & np.isfinite(edge) & (values.shape[1] > k)
    for row in np.flatnonzero(tied_at_the_edge):
        columns[row, :k] = np.argsort(-scores_BV[row], kind="stable")[:k]
        values[row, :k] = scores_BV[row, columns[row, :k]]
    return values[:, :k], columns[:, :k]


def _best(scores_BV: Scores, k: int) -> tuple[Scores, Columns]:
    """Return the k best scores and their columns, unsorted, ties in any order.

    They are among the k tiles with the highest maxima, so that only those are looked at twice.
    """
    rows, width = scores_BV.shape
    tiles = width // _TILE
    if tiles <= 2 * k:
        columns = _largest(scores_BV, k)
        return np.take_along_axis(scores_BV, columns, axis=1), columns
    whole = scores_BV[:, : tiles * _TILE].reshape(rows, tiles, _TILE)
    starts = _largest(whole.max(axis=2), k) * _TILE
    inside = (starts[:, :, None] + np.arange(_TILE)).reshape(rows, k * _TILE)
    rest = np.broadcast_to(np.arange(tiles * _TILE, width), (rows, width - tiles * _TILE))
    columns_BC = np.concatenate((inside, rest), axis=1)
    candidates_BC = np.take_along_axis(scores_BV, columns_BC, axis=1)
    places = _largest(candidates_BC, k)
    return np.take_along_axis(candidates_BC, places, axis=1), np.take_along_axis(columns_BC, places, axis=1)


def _largest(values: Scores, k: int) -> Columns:
    """Return where the k largest of each row are, unsorted, [B, k]."""
    size = values.shape[1]
    return np.argpartition(values, size - k, axis=1)[:, size - k :]
