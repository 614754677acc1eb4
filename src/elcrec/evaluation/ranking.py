"""Full ranking over all items, a block of users at a time.

Axes: `N` users, `B` users of a block, `V` items, `D` hidden size, `K` best items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.evaluation.metrics import MISS
from elcrec.ops.device import to_device

_TILE = 64
_BLOCK_ON_CPU, _MOST_SCORES = 128, 2**27
"""Default block: number of users on a CPU, whose scores fit its caches; number of scores at most, 512 MB."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The rank of each target, and the best items.

    Attributes:
        ranks: 1 is best; ties count against the target; `MISS` for an excluded target, [N].
        top_items: indices of the best items, best first; 0 if no item is left, [N, K].
    """

    ranks: npt.NDArray[np.int32]
    top_items: npt.NDArray[np.int32]


@torch.inference_mode()
def rank_targets(
    users_ND: Tensor,
    items_VD: Tensor,
    excluded: Ragged,
    target_items: npt.NDArray[np.int64],
    *,
    add: Callable[[Tensor, slice], object] | None = None,
    top_k: int = 20,
    block_users: int | None = None,
) -> Ranking:
    """Rank each user's target by dot product, and what is added to it, among all items that are not excluded.

    Memory is bounded by one block: `block_users` x V scores and as many flags. A score that is not a number counts as a
    miss, so that a diverged model cannot rank well.

    Args:
        users_ND: one vector per user, [N, D].
        items_VD: item vectors, [V + 1, D]; row 0 is padding and never ranked.
        excluded: items that are not ranked, N rows of indices.
        target_items: the item to find, [N].
        add: adds to the scores of a range of users in place, [B, V + 1]; `None` for products of vectors alone.
        top_k: number of best items to return, at most V; 0 for ranks only.
        block_users: users ranked at a time; `None` chooses for the device.
    """
    num_users, num_items = len(users_ND), len(items_VD) - 1
    on_cpu = users_ND.device.type == "cpu"
    fitting = max(1, _MOST_SCORES // num_items)
    block_users = block_users or (min(_BLOCK_ON_CPU, fitting) if on_cpu else fitting)
    # Results stay on the device, so that a GPU is synchronised only once.
    ranks_N = torch.empty(num_users, dtype=torch.int32, device=users_ND.device)
    top_items_NK = ranks_N.new_empty(num_users, min(top_k, num_items))
    scores_buffer = users_ND.new_empty((min(block_users, num_users), num_items + 1))
    # With so few rows, the matrix product is faster with the transposed layout.
    items_DV = items_VD.T.contiguous()
    targets_N1 = to_device(torch.from_numpy(target_items), users_ND.device)[:, None]
    for start in range(0, num_users, block_users):
        block = slice(start, min(start + block_users, num_users))
        scores_BV = torch.mm(users_ND[block], items_DV, out=scores_buffer[: block.stop - start])
        if add is not None:
            add(scores_BV, block)
        mask_history(scores_BV, excluded.part(block))
        target_scores_B1 = scores_BV.gather(1, targets_N1[block])
        # Of V items and padding, those not below the target are before it, or are the target itself; padding is below
        # every target except an excluded one.
        places_B = num_items + 1 - _count_below(scores_BV, target_scores_B1)
        ranks_N[block] = places_B.masked_fill_(places_B > num_items, MISS)
        if top_items_NK.shape[1]:
            top_items_NK[block] = best_items(scores_BV, top_items_NK.shape[1])
    return Ranking(ranks=ranks_N.cpu().numpy(), top_items=top_items_NK.cpu().numpy())


def best_items(scores_BV: Tensor, k: int) -> Tensor:
    """Return the k best columns of each row, best first, with 0 in place of columns with a score of -inf, [B, K].

    The k best are in the k tiles with the highest maxima, so only these tiles need sorting.
    """
    width = scores_BV.shape[1]
    tiles = width // _TILE
    if tiles <= 2 * k:
        best = scores_BV.topk(k, dim=1)
        return best.indices.masked_fill_(torch.isneginf(best.values), PADDING)
    tiled = torch.unflatten(scores_BV[:, : tiles * _TILE], 1, (tiles, _TILE))
    peaks = tiled.amax(2).topk(k, dim=1, sorted=False).indices
    inside = tiled.gather(1, peaks[:, :, None].expand(-1, -1, _TILE)).flatten(1)
    best = torch.cat((inside, scores_BV[:, tiles * _TILE :]), dim=1).topk(k, dim=1)
    # The remaining columns form one more tile, the last.
    starts = F.pad(peaks, (0, 1), value=tiles) * _TILE
    columns = starts.gather(1, best.indices // _TILE) + best.indices % _TILE
    return columns.masked_fill_(torch.isneginf(best.values), PADDING)


def mask_history(scores_BV: Tensor, histories: Ragged) -> Tensor:
    """Set the scores of padding and of each row's history to -inf, in place."""
    row_N = to_device(torch.from_numpy(histories.owners), scores_BV.device)
    item_N = to_device(torch.from_numpy(histories.values.astype(np.int64)), scores_BV.device)
    # A plain number would be copied from the host, which would have to wait.
    scores_BV.index_put_((row_N, item_N), scores_BV.new_full((), -torch.inf))
    scores_BV[:, PADDING] = -torch.inf
    return scores_BV


def _count_below(scores_BV: Tensor, bounds_B1: Tensor) -> Tensor:
    """Count the scores of each row below its bound; on the CPU NumPy does it several times faster than PyTorch."""
    if scores_BV.device.type == "cpu":
        below = scores_BV.numpy() < bounds_B1.numpy()
        # Along an axis, NumPy would add the flags as integers; row by row it uses a fast count.
        return torch.tensor([np.count_nonzero(row) for row in below], dtype=torch.int32)
    return (scores_BV < bounds_B1).sum(1, dtype=torch.int32)
