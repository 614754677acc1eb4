"""The layout for CPUs: sequences of similar length side by side, with (almost) no padding.

A batch's rows are sorted by length and cut into groups. Inside a group every row takes the same number of positions, so
a group is a dense [rows, length] view of the flat array, and no gathering is needed.

Axes: `B` rows, `L` positions of a group's rows, `Q` queries among them, `N` flat positions of all groups, `M` items,
row after row, `D` hidden size, `S` steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.config import LONGEST_WINDOW
from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.model.layout import CPU, Layout
from elcrec.ops.device import to_device
from elcrec.ops.dropout import attend_dropping, dropout_masks

_LENGTHS = np.array(
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 512, LONGEST_WINDOW)
)
Ints = npt.NDArray[np.int64]


class Group(NamedTuple):
    """A dense block of `rows * length` flat positions."""

    rows: int
    length: int

    @property
    def size(self) -> int:
        """Number of flat positions."""
        return self.rows * self.length


@dataclass(frozen=True, kw_only=True)
class GroupedLayout(Layout):
    """Rows in dense blocks.

    Attributes:
        positions_M: flat position of every item (including masked ones), row after row.
        order_B: the rows in the order of the groups.
        slots_B: position of each row in that order.
        groups: the dense blocks, with the shortest rows first.
    """

    positions_M: Tensor
    order_B: Tensor
    slots_B: Tensor
    groups: tuple[Group, ...]

    def ends(self) -> Tensor:
        return self.positions_M[self.lengths_B.cumsum(0) - 1]

    def places(self) -> Tensor:
        padded_B = torch.tensor([group.length for group in self.groups for _ in range(group.rows)])
        lengths_B = self.lengths_B[self.order_B]
        return lengths_B.repeat_interleave(padded_B.to(lengths_B.device)) - 1 - self.ages_N

    def of_items(self, states_ND: Tensor) -> Tensor:
        return states_ND.index_select(0, self.positions_M)

    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        masks = []
        for visible_BL in self._blocks(self.items_N != PADDING):
            causal_LL = torch.ones(visible_BL.shape[1], visible_BL.shape[1], dtype=torch.bool, device=visible_BL.device)
            sees_BLL = visible_BL[:, None, :] & causal_LL.tril_()
            masks.append(self._additive(sees_BLL, sees_BLL.diagonal(dim1=1, dim2=2), sees_BLL, dtype))
        return masks

    def _blocks(self, values: Tensor) -> list[Tensor]:
        """Cut values of all positions into the dense blocks, [N, …] to [rows, length, …] each."""
        parts = torch.split(values, [group.size for group in self.groups])
        return [part.view(*group, *part.shape[1:]) for part, group in zip(parts, self.groups, strict=True)]

    def attend(self, projected: Tensor, masks: list[Tensor], num_heads: int, dropout: float) -> Tensor:
        blocks = [_heads(block, 3, num_heads) for block in self._blocks(projected)]
        return torch.cat(_mix_all(blocks, masks, dropout))

    def attend_from_ends(
        self,
        states_ND: Tensor,
        query: Callable[[Tensor], Tensor],
        keys_values: Tensor,
        masks: list[Tensor],
        num_heads: int,
        dropout: float,
    ) -> Tensor:
        ends_BD = torch.cat([block[:, -1] for block in self._blocks(states_ND)])
        queries = torch.split(query(ends_BD), [group.rows for group in self.groups])
        blocks = [
            (*_heads(query_BD[:, None], 1, num_heads), *_heads(block, 2, num_heads))
            for query_BD, block in zip(queries, self._blocks(keys_values), strict=True)
        ]
        contexts = _mix_all(blocks, [mask_BLL[:, -1:] for mask_BLL in masks], dropout)
        return torch.cat(contexts).index_select(0, self.slots_B)


def _heads(block: Tensor, kinds: int, num_heads: int) -> tuple[Tensor, ...]:
    """Split projections of several kinds side by side, [B, L, kinds * D], into kinds and heads, [H, B, L, d] each."""
    return block.view(*block.shape[:2], kinds, num_heads, -1).permute(2, 3, 0, 1, 4).unbind()


def _mix_all(blocks: Sequence[tuple[Tensor, ...]], masks: Sequence[Tensor], dropout: float) -> list[Tensor]:
    """Attend in each block of queries, keys and values, [H, B, L, d] each; return [B Q, D] of each."""
    drops: Sequence[Tensor | None] = [None] * len(blocks)
    if dropout and masks[0].device.type == "cpu":
        heads = len(blocks[0][0])
        drops = dropout_masks([(heads * len(mask_BQL), *mask_BQL.shape[1:]) for mask_BQL in masks], dropout)
    contexts = []
    for (query, key, value), mask_BQL, drop in zip(blocks, masks, drops, strict=True):
        if drop is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_BQL[None], dropout_p=dropout)
        else:
            mixed = attend_dropping(query, key, value, mask_BQL, drop)
        contexts.append(mixed.permute(1, 2, 0, 3).flatten(2).flatten(0, 1))
    return contexts


def group_rows(rows: Ragged, device: torch.device = CPU, *, sees_all: bool = False) -> GroupedLayout:
    """Lay out non-empty rows of item indices in groups."""
    (layout,) = group_steps(rows, [len(rows)], device, sees_all=sees_all)
    return layout


def group_steps(
    rows: Ragged, rows_S: Sequence[int], device: torch.device = CPU, *, sees_all: bool = False
) -> list[GroupedLayout]:
    """Lay out the non-empty rows of several steps, `rows_S` of each, at once; return one layout per step.

    NumPy is used because for a request of a few rows the overhead of PyTorch's calls would dominate. Then everything is
    moved to the device at once.
    """
    order, row_M, row_S = _order(rows.lengths, rows_S), rows.owners, np.cumsum([0, *rows_S])
    flat_M = (order.ends_B[order.slots_B] - rows.offsets[1:])[row_M] + np.arange(len(row_M))
    items_N = np.zeros(order.ends_B[-1], np.int64)
    items_N[flat_M] = rows.values
    ages_N = np.repeat(order.ends_B, np.diff(order.ends_B, prepend=0)) - 1 - np.arange(len(items_N))
    # The first item and the first position of each step.
    item_S, place_S = rows.offsets[row_S], np.concatenate(([0], order.ends_B))[row_S]
    cuts: dict[str, tuple[Ints, Ints, Ints | None]] = {
        "lengths_B": (rows.lengths, row_S, None),
        "row_M": (row_M, item_S, row_S),
        "items_N": (items_N, place_S, None),
        "ages_N": (ages_N, place_S, None),
        "positions_M": (flat_M, item_S, place_S),
        "order_B": (order.rows_B, row_S, row_S),
        "slots_B": (order.slots_B, row_S, row_S),
    }
    parts_S = zip(*(_cut(*cut, device) for cut in cuts.values()), strict=True)
    return [
        GroupedLayout(**dict(zip(cuts, parts, strict=True)), groups=groups, sees_all=sees_all)
        for parts, groups in zip(parts_S, order.groups_S, strict=True)
    ]


class _Order(NamedTuple):
    """The rows in the order of their groups, step after step; each row's position there; its end; the groups."""

    rows_B: Ints
    slots_B: Ints
    ends_B: Ints
    groups_S: list[tuple[Group, ...]]


def _order(lengths_B: Ints, rows_S: Sequence[int]) -> _Order:
    width, padded = len(_LENGTHS), np.minimum(_LENGTHS, lengths_B.max())
    kind_B = np.repeat(np.arange(len(rows_S)) * width, rows_S) + np.searchsorted(_LENGTHS, lengths_B)
    counts = np.bincount(kind_B, minlength=len(rows_S) * width).reshape(-1, width).tolist()
    groups_S = [tuple(Group(*size) for size in zip(rows, padded.tolist(), strict=True) if size[0]) for rows in counts]
    rows_B = np.argsort(kind_B, kind="stable")
    slots_B = np.empty_like(rows_B)
    slots_B[rows_B] = np.arange(len(rows_B))
    return _Order(rows_B, slots_B, padded[kind_B[rows_B] % width].cumsum(), groups_S)


def _cut(values: Ints, bounds_S: Ints, less_S: Ints | None, device: torch.device) -> Sequence[Tensor]:
    """Move values of all steps to the device and cut them by step; `less_S` is subtracted from each step's numbers."""
    counts = np.diff(bounds_S)
    whole = values if less_S is None else values - np.repeat(less_S[:-1], counts)
    return torch.split(to_device(torch.from_numpy(whole), device), counts.tolist())
