"""Full ranking over all items, a block of users at a time.

Axes: `B` users of a block, `V` items, `D` hidden size, `N` users.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.data.ragged import Ragged

PADDING = 0


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Where each target stands and what stands before it.

    Attributes:
        ranks: 1 is best; ties count against the target; a target in the history is last, [N].
        top_items: indices of the best items, best first, [N, k].
    """

    ranks: npt.NDArray[np.int32]
    top_items: npt.NDArray[np.int32]


@torch.inference_mode()
def rank_targets(
    users_ND: Tensor,
    items_VD: Tensor,
    histories: Ragged,
    target_items: npt.NDArray[np.int64],
    *,
    top_k: int = 20,
    block_users: int = 1024,
) -> Ranking:
    """Rank each user's target by dot product among all items outside her history.

    Memory is bounded by one block: `block_users` x V scores.

    Args:
        users_ND: a vector a user, [N, D].
        items_VD: item vectors, [V + 1, D]; row 0 is padding and never ranked.
        histories: items to exclude, N rows of indices.
        target_items: the item to find, [N].
        top_k: how many best items to return, at most V; 0 where only ranks are wanted.
        block_users: users ranked at a time.
    """
    top_k = min(top_k, len(items_VD) - 1)
    ranks = np.empty(len(users_ND), np.int32)
    top_items = np.empty((len(users_ND), top_k), np.int32)
    for start in range(0, len(users_ND), block_users):
        block = slice(start, min(start + block_users, len(users_ND)))
        rows = np.arange(block.start, block.stop)
        scores_BV = mask_history(users_ND[block] @ items_VD.T, histories.take(rows))
        target_B1 = torch.from_numpy(target_items[block]).to(scores_BV.device)[:, None]
        target_scores_B1 = scores_BV.gather(1, target_B1)
        # The target itself is counted by >=, so a lone best target has rank 1 and ties push it down.
        ranks[block] = (scores_BV >= target_scores_B1).sum(1).cpu().numpy() - _padding_counted(target_scores_B1)
        if top_k:
            top_items[block] = scores_BV.topk(top_k, dim=1).indices.cpu().numpy()
    return Ranking(ranks=ranks, top_items=top_items)


def mask_history(scores_BV: Tensor, histories: Ragged) -> Tensor:
    """Set the scores of padding and of each row's history to -inf, in place."""
    lengths = torch.from_numpy(histories.lengths)
    row_N = torch.repeat_interleave(torch.arange(len(histories)), lengths).to(scores_BV.device)
    item_N = torch.from_numpy(histories.values.astype(np.int64)).to(scores_BV.device)
    scores_BV[row_N, item_N] = -torch.inf
    scores_BV[:, PADDING] = -torch.inf
    return scores_BV


def _padding_counted(target_scores_B1: Tensor) -> npt.NDArray[np.int32]:
    """Padding ties with an excluded target (-inf >= -inf) but is no item: leave it out of the count."""
    return torch.isneginf(target_scores_B1[:, 0]).to(torch.int32).cpu().numpy()
