"""Exact top-k with one answer only: among equal scores the lower index comes first.

Axes: `B` rows, `V` columns.
"""

import torch
from torch import Tensor


def top_k(scores_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row, best first, and their columns, [B, k] each.

    `torch.topk` alone breaks ties in no stated order.
    """
    beyond = min(k + 1, scores_BV.shape[1])
    values, indices = scores_BV.topk(beyond, dim=1)
    tied_at_the_edge = (values[:, k - 1] == values[:, -1]) & (beyond > k)
    values, indices = _order_ties(values[:, :k], indices[:, :k])
    rows = tied_at_the_edge.nonzero()[:, 0]
    if len(rows):
        ordered = scores_BV[rows].sort(dim=1, descending=True, stable=True)
        values[rows], indices[rows] = ordered.values[:, :k], ordered.indices[:, :k]
    return values, indices


def _order_ties(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sort by score, best first, then by index."""
    by_index = indices.argsort(dim=1)
    values, indices = values.gather(1, by_index), indices.gather(1, by_index)
    by_score = torch.sort(values, dim=1, descending=True, stable=True)
    return by_score.values, indices.gather(1, by_score.indices)
