"""Sequences of similar length side by side, so that the encoder works on (almost) no padding.

A batch is one flat array of positions. Its rows are sorted by length and cut into groups; inside a group every row
takes the same number of positions and is aligned to the right, so a group is a dense [rows, length] view of the flat
array and nothing is ever gathered.

Axes: `B` rows, `N` flat positions of all groups, `T` window.
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


@dataclass(frozen=True, kw_only=True)
class GroupedBatch:
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices; 0 where padded or masked, int64.
        real_N: whether a position belongs to a sequence (a masked one does), bool.
        layout: where the rows lie.
    """

    items_N: Tensor
    real_N: Tensor
    layout: Layout

    def to(self, device: torch.device) -> "GroupedBatch":
        """Move the tensors."""
        layout = replace(self.layout, slot_B=self.layout.slot_B.to(device), first_B=self.layout.first_B.to(device))
        return GroupedBatch(items_N=self.items_N.to(device), real_N=self.real_N.to(device), layout=layout)


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
    positions = positions_of(layout, lengths_B)
    return GroupedBatch(
        items_N=scatter(items, positions, layout.size),
        real_N=scatter(torch.ones_like(positions, dtype=torch.bool), positions, layout.size),
        layout=layout,
    )


def scatter(values: Tensor, positions: Tensor, size: int) -> Tensor:
    """Spread `values` over a zero array of `size` at `positions`."""
    flat = values.new_zeros(size)
    flat[positions] = values
    return flat
