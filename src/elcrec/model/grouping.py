"""Sequences of similar length side by side, so that the encoder works on (almost) no padding.

A batch is one flat array of positions. Its rows are sorted by length and cut into groups; inside a group every row
takes the same number of positions and is aligned to the right, so a group is a dense [rows, length] view of the flat
array and nothing is ever gathered.

Axes: `B` rows, `N` flat positions of all groups, `M` items, row after row, `S` steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from torch import Tensor

from elcrec.config import LONGEST_WINDOW
from elcrec.data.dataset import PADDING
from elcrec.model.transfer import to_device

FAR = 1e9
"""How far below its score a key is put that may not be seen: the weight is exactly 0 in float32."""

_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 512, LONGEST_WINDOW)
_LENGTHS_ARRAY = np.array(_LENGTHS)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Group:
    """Rows that share a length: the flat positions from `start` to `start + rows * length`."""

    start: int
    rows: int
    length: int

    @property
    def size(self) -> int:
        """Number of flat positions."""
        return self.rows * self.length

    @property
    def stop(self) -> int:
        """One past the last flat position."""
        return self.start + self.size


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which row each item belongs to.

    Attributes:
        lengths_B: length of each row, at least 1.
        row_M: row of each item.
    """

    lengths_B: Tensor
    row_M: Tensor

    @classmethod
    def of(cls, lengths_B: Tensor, device: torch.device = _CPU) -> Self:
        """Number the items of rows of these lengths."""
        row_M = torch.repeat_interleave(torch.arange(len(lengths_B)), lengths_B)
        return cls(lengths_B=to_device(lengths_B, device), row_M=to_device(row_M, device))


@dataclass(frozen=True, kw_only=True)
class GroupedBatch(Rows):
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices; 0 where padded or masked, int64.
        age_N: how many positions each flat position stands before the end of its row.
        positions_M: flat position of every item (a masked one included), row after row.
        slot_B: place of each row among the rows of all groups.
        groups: the dense blocks, shortest rows first.
        sees_all: whether a query that sees no item sees its whole row instead of itself, as padding does that the
            published code encodes.
    """

    items_N: Tensor
    age_N: Tensor
    positions_M: Tensor
    slot_B: Tensor
    groups: tuple[Group, ...]
    sees_all: bool = False

    def item_ages(self) -> Tensor:
        """Return how many positions each item stands before the end of its row, [M]."""
        return self.age_N.index_select(0, self.positions_M)

    def of_items(self, states_ND: Tensor) -> Tensor:
        """Take the states of the items, row after row, out of those of all positions, [M, D]."""
        return states_ND.index_select(0, self.positions_M)

    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        """What to add to each group's scores, [B, L, L]: a query sees the items of its row up to itself."""
        return [_attention_mask(self.items_N, group, dtype, sees_all=self.sees_all) for group in self.groups]


def group_rows(items_M: Tensor, lengths_B: Tensor) -> GroupedBatch:
    """Lay rows, given one after another in `items_M`, out in groups: `group_steps` for one step.

    In NumPy, because a request of a few rows would pay for PyTorch's calls alone.

    Args:
        items_M: item indices of all rows, int64.
        lengths_B: length of each row, at least 1, int64.
    """
    items, lengths = items_M.numpy(), lengths_B.numpy()
    bucket_B, padded = np.searchsorted(_LENGTHS_ARRAY, lengths), np.minimum(_LENGTHS_ARRAY, lengths.max())
    order_B, slot_B = np.argsort(bucket_B, kind="stable"), np.empty_like(bucket_B)
    slot_B[order_B] = np.arange(len(order_B))
    padded_B = padded[bucket_B[order_B]]
    ends_B = padded_B.cumsum()
    row_M = np.repeat(np.arange(len(lengths)), lengths)
    flat_M = (ends_B[slot_B] - lengths.cumsum())[row_M] + np.arange(len(items))
    items_N = np.zeros(ends_B[-1], items.dtype)
    items_N[flat_M] = items
    age_N = np.repeat(ends_B, padded_B) - 1 - np.arange(len(items_N))
    arrays = {"row_M": row_M, "items_N": items_N, "age_N": age_N, "positions_M": flat_M, "slot_B": slot_B}
    counts = np.bincount(bucket_B, minlength=len(padded))
    return GroupedBatch(
        lengths_B=lengths_B,
        groups=_step_groups(counts.tolist(), padded.tolist()),
        sees_all=False,
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
    )


def group_steps(
    items_M: Tensor, lengths_B: Tensor, rows_S: Sequence[int], device: torch.device = _CPU, *, sees_all: bool = False
) -> list[GroupedBatch]:
    """Lay the rows of several steps out at once: a batch a step.

    Args:
        items_M: item indices of all rows of all steps, int64.
        lengths_B: length of each row, at least 1, int64.
        rows_S: rows of each step.
        device: where the batches are wanted; everything is moved there in one go.
        sees_all: as for `GroupedBatch`.
    """
    step_B = torch.repeat_interleave(torch.arange(len(rows_S)), torch.tensor(rows_S))
    bucket_B = torch.bucketize(lengths_B, torch.tensor(_LENGTHS))
    padded = torch.tensor(_LENGTHS).clamp(max=int(lengths_B.max()))
    order_B = torch.sort(step_B * len(_LENGTHS) + bucket_B, stable=True).indices
    slot_B = torch.empty_like(order_B)
    slot_B[order_B] = torch.arange(len(order_B))
    padded_B = padded[bucket_B[order_B]]
    ends_B = padded_B.cumsum(0)
    groups = _groups(step_B, bucket_B, padded, len(rows_S))
    sizes = [step[-1].stop for step in groups]
    starts = torch.tensor([0, *accumulate(sizes)])[:-1]
    first_rows = torch.tensor([0, *accumulate(rows_S)])[:-1]

    first_B = ends_B[slot_B] - lengths_B
    offsets_B = lengths_B.cumsum(0) - lengths_B
    row_M = torch.repeat_interleave(torch.arange(len(lengths_B)), lengths_B)
    flat_M = (first_B - offsets_B)[row_M] + torch.arange(len(items_M))
    items_N = items_M.new_zeros(sum(sizes)).index_copy_(0, flat_M, items_M)
    age_N = torch.repeat_interleave(ends_B, padded_B) - 1 - torch.arange(len(items_N))
    items_S = torch.zeros(len(rows_S), dtype=torch.int64).index_add_(0, step_B, lengths_B).tolist()
    cuts = {
        "lengths_B": (lengths_B, list(rows_S)),
        "row_M": (row_M - first_rows[step_B][row_M], items_S),
        "items_N": (items_N, sizes),
        "age_N": (age_N, sizes),
        "positions_M": (flat_M - starts[step_B][row_M], items_S),
        "slot_B": (slot_B - first_rows[step_B], list(rows_S)),
    }
    parts = zip(*(torch.split(to_device(host, device), counts) for host, counts in cuts.values()), groups, strict=True)
    return [GroupedBatch(**dict(zip((*cuts, "groups"), part, strict=True)), sees_all=sees_all) for part in parts]


def _groups(step_B: Tensor, bucket_B: Tensor, padded: Tensor, num_steps: int) -> list[tuple[Group, ...]]:
    """Cut each step's rows into groups of one padded length."""
    width = len(padded)
    counts = torch.bincount(step_B * width + bucket_B, minlength=num_steps * width).view(num_steps, width)
    return [_step_groups(rows, padded.tolist()) for rows in counts.tolist()]


def _step_groups(rows: list[int], lengths: list[int]) -> tuple[Group, ...]:
    """Place the groups of one step one after another; a length without rows has none."""
    sizes = [(count, length) for count, length in zip(rows, lengths, strict=True) if count]
    starts = accumulate((count * length for count, length in sizes), initial=0)
    return tuple(Group(start, *size) for start, size in zip(starts, sizes, strict=False))


def _attention_mask(items_N: Tensor, group: Group, dtype: torch.dtype, *, sees_all: bool) -> Tensor:
    visible_BL = (items_N[group.start : group.stop] != PADDING).view(group.rows, group.length)
    causal_LL = torch.ones(group.length, group.length, dtype=torch.bool, device=items_N.device).tril()
    sees_BLL = visible_BL[:, None, :] & causal_LL
    blind_BL = visible_BL.cumsum(1) == 0
    if sees_all:
        sees_BLL.logical_or_(blind_BL[:, :, None])
    else:
        sees_BLL.diagonal(dim1=1, dim2=2).logical_or_(blind_BL)
    return sees_BLL.to(dtype).sub_(1).mul_(FAR)
