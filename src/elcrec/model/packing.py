"""Sequences one right after another in a flat array of a fixed size: the layout of a GPU.

Where groups of one length (`grouping`) waste least on a CPU, they are many small operations of ever new shapes. Here
every step has the same few operations and shapes, so that it can be recorded once and replayed, and nothing depends on
a value that the host would have to ask for. Attention runs over chunks as long as the window: a row is no longer than
that, so what a query may see stands in its own chunk or the one before.

Axes: `B` rows, `N` flat positions, `C` chunks, `W` positions of a chunk.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.model.grouping import FAR, Rows
from elcrec.model.transfer import to_device


@dataclass(frozen=True, kw_only=True)
class PackedBatch(Rows):
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices; 0 where masked and after the last row, int64.
        row_M: row of each flat position (N of them); B after the last row.
        place_N: how many positions each flat position stands after the start of its row.
        age_N: and how many before its end; 0 after the last row.
        chunk: W, no less than the longest row; N is a multiple of it where the encoder reads the batch.
    """

    items_N: Tensor
    place_N: Tensor
    age_N: Tensor
    chunk: int

    def item_ages(self) -> Tensor:
        """Return `age_N`: positions are items, row after row."""
        return self.age_N

    def of_items(self, states_ND: Tensor) -> Tensor:
        """Return the states as they are: row after row, and noise after the last row."""
        return states_ND

    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        """What to add to scores, [C, 1, W, 2 W]: a query sees what its row holds up to itself, or itself if nothing."""
        width = self.chunk
        place_CW1 = self.place_N.view(-1, width, 1)
        visible_C1K = _with_previous((self.items_N != PADDING).view(-1, width))[:, None]
        step_W = torch.arange(width, device=self.items_N.device)
        before_WK = step_W[:, None] + width - torch.arange(2 * width, device=self.items_N.device)
        sees_CWK = (before_WK >= 0) & (before_WK <= place_CW1) & visible_C1K
        blind_CW = ~sees_CWK.any(2)
        sees_CWK.diagonal(offset=width, dim1=1, dim2=2).logical_or_(blind_CW)
        return [sees_CWK.to(dtype).sub_(1).mul_(FAR)[:, None]]


def chunk_of(window: int) -> int:
    """Return the width of a chunk for rows of up to `window` items; fused kernels want a multiple of 8."""
    return -(-window // 8) * 8


class Slots(NamedTuple):
    """Where each of N flat positions lies.

    Attributes:
        row: its row, B after the last one, [N].
        place: how many positions it stands after the start of its row, [N].
        age: and how many before its end, 0 after the last row, [N].
    """

    row: Tensor
    place: Tensor
    age: Tensor


def slots(lengths_B: Tensor, size: int) -> Slots:
    """Lay rows of these lengths one after another into `size` positions, no fewer than all of them take."""
    ends_B = lengths_B.cumsum(0)
    position_N = torch.arange(size, device=lengths_B.device)
    row_N = torch.searchsorted(ends_B, position_N, right=True)
    place_N = position_N - F.pad(ends_B, (1, 0))[row_N]
    return Slots(row_N, place_N, (F.pad(ends_B, (0, 1))[row_N] - 1 - position_N).clamp_(min=0))


def pack(rows: Ragged, window: int, device: torch.device) -> PackedBatch:
    """Lay out rows of item indices, none of them empty or longer than the window."""
    chunk, used = chunk_of(window), int(rows.offsets[-1])
    items_M = to_device(torch.from_numpy(rows.values.astype(np.int64)), device)
    lengths_B = to_device(torch.from_numpy(rows.lengths), device)
    size = -(-used // chunk) * chunk
    row_N, place_N, age_N = slots(lengths_B, size)
    items_N = F.pad(items_M, (0, size - used))
    return PackedBatch(lengths_B=lengths_B, row_M=row_N, items_N=items_N, place_N=place_N, age_N=age_N, chunk=chunk)


def attend_chunks(projected: Tensor, mask_C1WK: Tensor, num_heads: int, dropout: float) -> Tensor:
    """Causal attention inside each row of a packed batch.

    Args:
        projected: queries, keys and values of all positions, [N, 3 D].
        mask_C1WK: what `PackedBatch.masks` returned.
        num_heads: heads that D is split into.
        dropout: share of the attention weights to drop.

    Returns:
        What each position attends to, [N, D].
    """
    chunks, _, width, _ = mask_C1WK.shape
    query, key, value = projected.view(chunks, width, 3, num_heads, -1).unbind(2)
    keys, values = (_with_previous(part).transpose(1, 2) for part in (key, value))
    context = F.scaled_dot_product_attention(
        query.transpose(1, 2), keys, values, attn_mask=mask_C1WK, dropout_p=dropout
    )
    return context.transpose(1, 2).reshape(chunks * width, -1)


def _with_previous(chunks: Tensor) -> Tensor:
    """Put before each chunk, [C, W, …], the chunk before it; before the first, zeros: [C, 2 W, …]."""
    previous = torch.cat((torch.zeros_like(chunks[:1]), chunks[:-1]))
    return torch.cat((previous, chunks), dim=1)
