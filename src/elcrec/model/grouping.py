"""Sequences of similar length side by side, so that the encoder works on (almost) no padding.

A batch is one flat array of positions. Its rows are sorted by length and cut into groups; inside a group every row
takes the same number of positions and is aligned to the right, so a group is a dense [rows, length] view of the flat
array and nothing is ever gathered.

Axes: `B` rows, `N` flat positions of all groups, `M` items, row after row, `T` window.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 512, 1024)


@dataclass(frozen=True)
class Group:
    """Rows that share a length: the flat positions from `start` to `start + rows * length`."""

    start: int
    rows: int
    length: int

    @property
    def stop(self) -> int:
        """One past the last flat position."""
        return self.start + self.rows * self.length


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each row of a batch lies in the flat array.

    Attributes:
        groups: the dense blocks, shortest rows first.
        slot_B: place of each row among the sorted rows.
        first_B: flat position of each row's first item.
        size: number of flat positions (N), padding included.
    """

    groups: tuple[Group, ...]
    slot_B: Tensor
    first_B: Tensor
    size: int

    def ages(self) -> Tensor:
        """How many positions each flat position stands before the end of its row, [N]."""
        return torch.cat([torch.arange(group.length - 1, -1, -1).repeat(group.rows) for group in self.groups])


@dataclass(frozen=True, kw_only=True)
class GroupedBatch:
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices; 0 where padded or masked, int64.
        age_N: how many positions each flat position stands before the end of its row.
        positions_M: flat position of every item (a masked one included), row after row.
        row_M: row of every item.
        lengths_B: length of each row.
        layout: where the rows lie; its tensors stay on the CPU.
    """

    items_N: Tensor
    age_N: Tensor
    positions_M: Tensor
    row_M: Tensor
    lengths_B: Tensor
    layout: Layout

    def to(self, device: torch.device) -> "GroupedBatch":
        """Move the tensors that the model computes with."""
        names = ("items_N", "age_N", "positions_M", "row_M", "lengths_B")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def plan_layout(lengths_B: Tensor) -> Layout:
    """Sort rows by length and give them to groups.

    Args:
        lengths_B: length of each row, at least 1, int64, on the CPU.
    """
    edges_B = torch.bucketize(lengths_B, torch.tensor(_LENGTHS))
    order_B = torch.sort(edges_B, stable=True).indices
    slot_B = torch.empty_like(order_B)
    slot_B[order_B] = torch.arange(len(order_B))
    counts = torch.bincount(edges_B, minlength=len(_LENGTHS)).tolist()
    longest = int(lengths_B.max())
    sizes = [(rows, min(length, longest)) for rows, length in zip(counts, _LENGTHS, strict=True) if rows]
    starts = list(accumulate((rows * length for rows, length in sizes), initial=0))
    groups = tuple(Group(start, *size) for start, size in zip(starts, sizes, strict=False))
    padded_B = torch.repeat_interleave(
        torch.tensor([length for _, length in sizes]), torch.tensor([rows for rows, _ in sizes])
    )
    ends_B = padded_B.cumsum(0)
    return Layout(groups=groups, slot_B=slot_B, first_B=ends_B[slot_B] - lengths_B, size=starts[-1])


def positions_of(layout: Layout, lengths_B: Tensor) -> Tensor:
    """Return the flat position of every item of every row, row after row, [sum of lengths]."""
    offsets_B = lengths_B.cumsum(0) - lengths_B
    return torch.repeat_interleave(layout.first_B - offsets_B, lengths_B) + torch.arange(int(lengths_B.sum()))


def group_rows(items: Tensor, lengths_B: Tensor) -> GroupedBatch:
    """Lay rows, given one after another in `items`, out in groups.

    Args:
        items: item indices of all rows, int64, [sum of lengths].
        lengths_B: length of each row, at least 1, int64.
    """
    layout = plan_layout(lengths_B)
    positions_M = positions_of(layout, lengths_B)
    return GroupedBatch(
        items_N=items.new_zeros(layout.size).index_copy_(0, positions_M, items),
        age_N=layout.ages(),
        positions_M=positions_M,
        row_M=torch.repeat_interleave(torch.arange(len(lengths_B)), lengths_B),
        lengths_B=lengths_B,
        layout=layout,
    )
