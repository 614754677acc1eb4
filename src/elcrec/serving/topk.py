"""Exact top-k with one answer only: among equal scores the lower index comes first.

Axes: `B` rows, `V` columns, `C` candidate columns.
"""

import torch
from torch import Tensor

_TILE = 64


def top_k(scores_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row, best first, and their columns, [B, k] each.

    `torch.topk` alone breaks ties in no stated order. Columns with a score of -inf come last, in any order.
    """
    beyond = min(k + 1, scores_BV.shape[1])
    values, indices = _best(scores_BV, beyond)
    edge = values[:, k - 1]
    tied_at_the_edge = (edge == values[:, -1]) & (beyond > k) & ~torch.isneginf(edge)
    values, indices = _order_ties(values[:, :k], indices[:, :k])
    rows = tied_at_the_edge.nonzero()[:, 0]
    if len(rows):
        ordered = scores_BV[rows].sort(dim=1, descending=True, stable=True)
        values[rows], indices[rows] = ordered.values[:, :k], ordered.indices[:, :k]
    return values, indices


def _best(scores_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores and their columns, ties in any order.

    They are among the k tiles with the highest maxima, so that only those need sorting.
    """
    tiles = scores_BV.shape[1] // _TILE
    if tiles <= 2 * k:
        return tuple(scores_BV.topk(k, dim=1))
    tiled = torch.unflatten(scores_BV[:, : tiles * _TILE], 1, (tiles, _TILE))
    peaks = tiled.amax(2).topk(k, dim=1, sorted=False).indices
    inside = tiled.gather(1, peaks[:, :, None].expand(-1, -1, _TILE)).flatten(1)
    candidates_BC = torch.cat((inside, scores_BV[:, tiles * _TILE :]), dim=1)
    values, places = candidates_BC.topk(k, dim=1)
    # The columns left over count as one more tile, the last.
    starts = torch.cat((peaks, peaks.new_full((len(peaks), 1), tiles)), dim=1) * _TILE
    return values, starts.gather(1, places // _TILE) + places % _TILE


def _order_ties(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by score, best first, then by index."""
    by_index = indices.argsort(dim=1)
    values, indices = values.gather(1, by_index), indices.gather(1, by_index)
    by_score = torch.sort(values, dim=1, descending=True, stable=True)
    return by_score.values, indices.gather(1, by_score.indices)
