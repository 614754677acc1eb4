"""The four losses of ELCRec, each a function of tensors.

Source: Liu et al. (NeurIPS 2024), equations named where they apply; contrastive terms as in Chen et al., "Intent
Contrastive Learning for Sequential Recommendation" (WWW 2022).

Axes: `B` rows, `M` items of all rows, row after row, `N` flat positions of a layout, `D` hidden size, `K` intents; `2`
is the two views.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.model.encoder import Layout
from elcrec.model.grouping import Rows
from elcrec.model.lookup import look_up
from elcrec.model.packing import PackedBatch


def next_item_loss(
    states_MD: Tensor, positives_MD: Tensor, negatives_MD: Tensor, weights_M: Tensor | None = None
) -> Tensor:
    """L_next: binary cross entropy of the next item against one drawn item, averaged over positions.

    Args:
        states_MD: encoder states.
        positives_MD: embedding of the item that came next.
        negatives_MD: embedding of a drawn item.
        weights_M: weight of each position, not all 0; `None` weighs all alike.
    """
    positive_M = (states_MD * positives_MD).sum(1)
    negative_M = (states_MD * negatives_MD).sum(1)
    losses_M = F.softplus(-positive_M) + F.softplus(negative_M)
    return losses_M.mean() if weights_M is None else (losses_M * weights_M).sum() / weights_M.sum()


def cluster_loss(pooled_BD: Tensor, centers_KD: Tensor) -> Tensor:
    """L_cluster: every behaviour drawn to all centres, centres driven apart.

    The mean over all pairs (h, c) of |h - c|^2 minus the mean over all pairs of centres of |c - c'|^2, multiplied out
    so that it costs O((B + K) D) instead of O(B K D + K^2 D). The pairs i = j of the second mean are kept, as in the
    published code; with unit vectors the value is 2 |mean c|^2 - 2 mean(h) . mean(c).

    Args:
        pooled_BD: unit behaviour vectors.
        centers_KD: unit centres.
    """
    mean_center_D = centers_KD.mean(0)
    norms = pooled_BD.square().sum() / len(pooled_BD) - centers_KD.square().sum() / len(centers_KD)
    return norms + 2 * mean_center_D @ (mean_center_D - pooled_BD.mean(0))


def info_nce(similarities_BB: Tensor, temperature: float, groups_B: Tensor | None = None) -> Tensor:
    """InfoNCE (NT-Xent): every row must find its partner, which stands half the rows away, among all other rows.

    Args:
        similarities_BB: dot products of all rows with all rows, an even number; or several such tables, [..., B, B],
            whose mean loss is returned.
        temperature: divides the similarities.
        groups_B: group of each row; it is not told apart from others of its own. `None`: all are told apart.
    """
    rows_B = torch.arange(similarities_BB.shape[-1], device=similarities_BB.device)
    partner_B = rows_B.roll(len(rows_B) // 2)
    groups_B = rows_B if groups_B is None else groups_B
    left_out_BB = (groups_B[:, None] == groups_B).scatter_(1, partner_B[:, None], value=False)
    logits_BB = (similarities_BB / temperature).masked_fill_(left_out_BB, -torch.inf)
    return F.cross_entropy(logits_BB.flatten(0, -2), partner_B.expand(logits_BB.shape[:-1]).flatten())


def intent_loss(views_2BD: Tensor, centers_BD: Tensor, temperature: float, intents_B: Tensor | None = None) -> Tensor:
    """L_intent: InfoNCE between pooled states and the centres of their sequences' intents, the mean of both views.

    Args:
        views_2BD: pooled state of the first view of each sequence, then of the second.
        centers_BD: the centre nearest to each sequence.
        temperature: divides the similarities.
        intents_B: which centre that is; where given, sequences of one intent are not told apart (false negative
            mitigation, ICLRec).
    """
    rows_2RD = torch.cat((views_2BD, centers_BD.expand_as(views_2BD)), dim=1)
    return info_nce(rows_2RD @ rows_2RD.mT, temperature, None if intents_B is None else intents_B.repeat(2))


def view_similarities(states_MD: Tensor, rows: Layout, padding_TD: Tensor | None, window: int) -> Tensor:
    """Dot products of flattened sequences of states, all rows with all rows, divided by the window's length.

    With `padding_TD` every row fills its window: the states of padding, which are the same in each row, stand before
    the row's own. Writing a row as padding plus a residual r that is zero off its own positions, the product of rows i
    and j is |p|^2 + p.r_i + p.r_j + r_i.r_j, so the full window costs no more than the rows' own positions. The
    constant |p|^2 is left out: no softmax over rows sees it.

    The published code does not divide by T. A position's product is up to D (LayerNorm), a window's up to T D = 3,200:
    a softmax of temperature 1 over such sums trains nothing else (docs/adr/0004).

    Args:
        states_MD: a state for every item of the rows.
        rows: says where the items stand.
        padding_TD: states of an empty window, or `None` to compare the rows' own positions alone.
        window: T.

    Returns:
        Similarities, [B, B].
    """
    if padding_TD is None:
        return sequence_similarities(states_MD, rows) / window
    empty_MD = look_up(padding_TD, window - 1 - rows.item_ages())
    residual_MD = states_MD - empty_MD
    shared_B = sum_rows((residual_MD * empty_MD).sum(1), rows)
    return (sequence_similarities(residual_MD, rows) + shared_B[None, :] + shared_B[:, None]) / window


def sum_rows(values: Tensor, rows: Rows) -> Tensor:
    """Sum what the items of each row have, [M, …] to [B, …]; what stands after the last row counts nowhere."""
    sums = values.new_zeros(len(rows.lengths_B) + 1, *values.shape[1:])
    return sums.index_add(0, rows.row_M[: len(values)], values)[:-1]


def sequence_similarities(states_MD: Tensor, rows: Layout) -> Tensor:
    """Dot products of whole sequences of states, summed over the positions (from the end) that both rows have.

    This equals the product of the flattened, zero-padded states, [B, T D] by [T D, B]. A packed batch takes that
    product; groups multiply only what is there: the columns of a group's extra length meet only rows that are at least
    as long.

    Args:
        states_MD: a state for every item of the rows.
        rows: says where the items stand.

    Returns:
        Similarities, [B, B].
    """
    if isinstance(rows, PackedBatch):
        padded_BX = _padded(states_MD, rows)
        return padded_BX @ padded_BX.T
    groups, slot_B = rows.groups, rows.slot_B
    states_ND = states_MD.new_zeros(len(rows.items_N), states_MD.shape[1]).index_copy(0, rows.positions_M, states_MD)
    parts = torch.split(states_ND, [group.size for group in groups])
    blocks = [part.view(group.rows, group.length, -1) for part, group in zip(parts, groups, strict=True)]
    shorter = [0, *(group.length for group in groups[:-1])]
    similarities_BB = states_ND.new_zeros(0, 0)
    for index in reversed(range(len(groups))):
        longest, known = groups[index].length, shorter[index]
        columns = [block[:, block.shape[1] - longest : block.shape[1] - known] for block in blocks[index:]]
        extra = torch.cat([column.flatten(1) for column in columns])
        added = groups[index].rows
        similarities_BB = torch.addmm(F.pad(similarities_BB, (added, 0, added, 0)), extra, extra.T)
    return similarities_BB[slot_B][:, slot_B]


def _padded(states_ND: Tensor, rows: PackedBatch) -> Tensor:
    """Flattened states of each row, its last one last, zeros before the first, [B, W D]."""
    count, width = len(rows.lengths_B), rows.chunk
    # What stands after the last row is written where nobody looks.
    padded = states_ND.new_zeros((count + 1) * width, states_ND.shape[1])
    places_N = rows.row_M * width + width - 1 - rows.age_N
    return padded.index_copy(0, places_N, states_ND).view(count + 1, -1)[:-1]
