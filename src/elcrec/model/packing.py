"""Sequences one right after another in a flat array of a fixed size: the layout of a GPU.

Where groups of one length (`grouping`) waste least on a CPU, they are many small operations of ever new shapes. Here
every step has the same few operations and shapes, so that it can be recorded once and replayed, and nothing depends on
a value that the host would have to ask for. Attention runs over chunks as long as the window: a row is no longer than
that, so what a query may see stands in its own chunk or the one before.

Axes: `B` rows, `N` flat positions, `C` chunks, `W` positions of a chunk.
"""

from dataclasses import dataclass
from functools import cache
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
        sees_all: whether a query that sees no item sees its whole row instead of itself; every row is a chunk then.
    """

    items_N: Tensor
    place_N: Tensor
    age_N: Tensor
    chunk: int
    sees_all: bool = False

    def item_ages(self) -> Tensor:
        """Return `age_N`: positions are items, row after row."""
        return self.age_N

    def of_items(self, states_ND: Tensor) -> Tensor:
        """Return the states as they are: row after row, and noise after the last row."""
        return states_ND

    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        """What to add to scores, [C, 1, W, 2 W]: a query sees the items of its row up to itself."""
        width = self.chunk
        visible_C1K = F.pad(self.items_N, (width, 0)).unfold(0, 2 * width, width)[:, None] != PADDING
        # A compiler folds constants itself, and warns of a cache.
        distances = _distances.__wrapped__ if torch.compiler.is_compiling() else _distances
        sees_CWK = (distances(width, self.items_N.device) <= self.place_N.view(-1, width, 1)) & visible_C1K
        blind_CW = ~sees_CWK.any(2)
        if self.sees_all:
            sees_CWK[:, :, width:].logical_or_(blind_CW[:, :, None])
        else:
            sees_CWK.diagonal(offset=width, dim1=1, dim2=2).logical_or_(blind_CW)
        return [sees_CWK.to(dtype).sub_(1).mul_(FAR)[:, None]]


def chunk_of(window: int) -> int:
    """Return the width of a chunk for rows of up to `window` items; fused kernels want a multiple of 8."""
    return -(-window // 8) * 8


class Slots(NamedTuple):
    """Where each of N flat positions lies.

    Attributes:
        row: its row, B after the last one, [..., N].
        place: how many positions it stands after the start of its row, [..., N].
        age: and how many before its end, 0 after the last row, [..., N].
    """

    row: Tensor
    place: Tensor
    age: Tensor


def slots(lengths_B: Tensor, size: int) -> Slots:
    """Lay rows of these lengths, [..., B], one after another into `size` positions, no fewer than all of them take."""
    ends_B = lengths_B.cumsum(-1)
    position_N = torch.arange(size, device=lengths_B.device).expand(*lengths_B.shape[:-1], size)
    row_N = torch.searchsorted(ends_B, position_N.contiguous(), right=True)
    place_N = position_N - F.pad(ends_B, (1, 0)).gather(-1, row_N)
    return Slots(row_N, place_N, (F.pad(ends_B, (0, 1)).gather(-1, row_N) - 1 - position_N).clamp_(min=0))


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
    size = projected.shape[1] // 3
    queries, keys_values = torch.split(projected.view(chunks, width, -1), [size, 2 * size], dim=2)
    # Before the first chunk stands the last one, of which no query sees anything.
    seen = torch.cat((keys_values.roll(1, 0), keys_values), dim=1)
    query = queries.view(chunks, width, num_heads, -1).transpose(1, 2)
    key, value = seen.view(chunks, 2 * width, 2, num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_C1WK, dropout_p=dropout)
    return context.transpose(1, 2).reshape(chunks * width, -1)


@cache
def _distances(width: int, device: torch.device) -> Tensor:
    """How far a key stands before a query, [W, 2 W]; further than any for a key after it.

    Kept for the life of the process: a recorded step reads it where it was.
    """
    before_WK = torch.arange(width)[:, None] + width - torch.arange(2 * width)
    return before_WK.masked_fill_(before_WK < 0, torch.iinfo(torch.int64).max).to(device)
