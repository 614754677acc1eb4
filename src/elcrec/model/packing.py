"""The layout for GPUs: sequences directly one after another in a flat array of a fixed size.

Groups of equal length (`grouping`) waste least on a CPU, but consist of many small operations with ever new shapes.
Here every step has the same few operations and shapes, so that it can be recorded once and replayed, and the host never
waits for a value. Attention runs over chunks of the window's length: a row is no longer than that, so everything that a
position may see is in its own chunk or the previous one.

Axes: `B` rows (`R` with the rest), `N` flat positions, `C` chunks, `W` positions of a chunk, `K` its keys (2 W).
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
from elcrec.model.layout import Layout
from elcrec.ops.device import to_device


@dataclass(frozen=True, kw_only=True)
class PackedLayout(Layout):
    """Rows directly one after another: every position up to the last row's end is an item, so M = N.

    Attributes:
        place_N: distance of each flat position from the start of its row.
        chunk: W, at least the length of the longest row; N is a multiple of it.
    """

    place_N: Tensor
    chunk: int

    def ends(self) -> Tensor:
        return self.lengths_B.cumsum(0) - 1

    def places(self) -> Tensor:
        return self.place_N

    def of_items(self, states_ND: Tensor) -> Tensor:
        return states_ND

    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        width = self.chunk
        visible_CK = F.pad(self.items_N != PADDING, (width, 0)).unfold(0, 2 * width, width)
        # A compiler folds constants itself, and warns about a cache.
        distances = _distances.__wrapped__ if torch.compiler.is_compiling() else _distances
        near_CWK = distances(width, self.items_N.device) <= self.place_N.view(-1, width, 1)
        sees_CWK = near_CWK & visible_CK[:, None]
        own_CW = sees_CWK.diagonal(offset=width, dim1=1, dim2=2)
        return [self._additive(sees_CWK, own_CW, sees_CWK[:, :, width:], dtype)[:, None]]

    def attend(self, projected: Tensor, masks: list[Tensor], num_heads: int, dropout: float) -> Tensor:
        size, width = projected.shape[1] // 3, self.chunk
        queries, keys_values = torch.split(projected.view(-1, width, 3 * size), [size, 2 * size], dim=2)
        # The chunk before the first one is the last one, of which no query sees anything.
        seen = torch.cat((keys_values.roll(1, 0), keys_values), dim=1)
        query = queries.view(-1, width, num_heads, size // num_heads).transpose(1, 2)
        key, value = seen.view(len(seen), 2 * width, 2, num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=masks[0], dropout_p=dropout)
        return context.transpose(1, 2).reshape(-1, size)


def chunk_of(window: int) -> int:
    """Return the width of a chunk for rows of up to `window` items; fused kernels need a multiple of 8."""
    return -(-window // 8) * 8


class Slots(NamedTuple):
    """The row of each of N flat positions (B after the last row), and its distances from the row's start and end."""

    row: Tensor
    place: Tensor
    age: Tensor


def slots(lengths_B: Tensor, size: int) -> Slots:
    """Place rows of these lengths, [..., B], one after another into `size` positions, which must suffice."""
    steps, rows = lengths_B.shape[:-1], lengths_B.shape[-1] + 1
    # One extra row takes the rest, so that all steps have the same number of positions, known to the host.
    lengths_R = torch.cat((lengths_B, size - lengths_B.sum(-1, keepdim=True)), -1)
    numbers_R = torch.arange(rows, device=lengths_B.device).expand_as(lengths_R).flatten()
    row_N = numbers_R.repeat_interleave(lengths_R.flatten(), output_size=size * steps.numel()).view(*steps, size)
    place_N = torch.arange(size, device=lengths_B.device) - (lengths_R.cumsum(-1) - lengths_R).gather(-1, row_N)
    ages_N = torch.where(row_N < rows - 1, lengths_R.gather(-1, row_N) - 1 - place_N, 0)
    return Slots(row_N, place_N, ages_N)


def pack(rows: Ragged, window: int, device: torch.device) -> PackedLayout:
    """Lay out rows of item indices, none empty or longer than the window."""
    chunk, used = chunk_of(window), int(rows.offsets[-1])
    lengths_B = to_device(torch.from_numpy(rows.lengths), device)
    where = slots(lengths_B, -(-used // chunk) * chunk)
    items_N = np.pad(rows.values.astype(np.int64), (0, len(where.row) - used))
    return PackedLayout(
        lengths_B=lengths_B,
        row_M=where.row,
        items_N=to_device(torch.from_numpy(items_N), device),
        place_N=where.place,
        ages_N=where.age,
        chunk=chunk,
    )


@cache
def _distances(width: int, device: torch.device) -> Tensor:
    """Return the distance of a key before a query, [W, 2 W]; larger than any distance for a key after the query.

    It is kept for the life of the process, because a recorded step reads fixed memory.
    """
    before_WK = torch.arange(width)[:, None] + width - torch.arange(2 * width)
    return before_WK.masked_fill_(before_WK < 0, torch.iinfo(torch.int64).max).to(device)
