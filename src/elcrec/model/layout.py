"""Layouts: how the rows of a batch are placed in one flat array of positions.

The encoder, its mixers and the losses depend only on this interface. There are two layouts: `grouping` pads rows of
similar length to the same length, for CPUs; `packing` puts rows directly one after another, for GPUs. In both, a row is
contiguous, and its items are aligned to the right of the window.

Axes: `B` rows, `N` flat positions, `M` items of all rows, row after row, `D` hidden size, `Q` queries, `K` keys.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FAR = 1e9
"""Amount subtracted from the score of a masked key, so that its weight is exactly 0 in float32."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows and the row of each item.

    Attributes:
        lengths_B: length of each row, at least 1.
        row_M: row of each item; B after the last row.
    """

    lengths_B: Tensor
    row_M: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Sum values over the items of each row, [M, …] to [B, …]; values after the last row are ignored."""
        sums = values.new_zeros(len(self.lengths_B) + 1, *values.shape[1:])
        return sums.index_add(0, self.row_M[: len(values)], values)[:-1]

    def mean(self, values_MD: Tensor) -> Tensor:
        """Average values over the items of each row, [M, D] to [B, D]."""
        return self.sum(values_MD) / self.lengths_B[:, None]


@dataclass(frozen=True, kw_only=True)
class Layout(Rows, ABC):
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices, int64; 0 if padded or masked.
        ages_N: distance of each flat position from the end of its row.
        sees_all: whether a position that sees no item sees its whole row instead of itself, like encoded padding in the
            published code.
    """

    items_N: Tensor
    ages_N: Tensor
    sees_all: bool = False

    @abstractmethod
    def ends(self) -> Tensor:
        """Return the flat position of the last item of each row, [B]."""

    @abstractmethod
    def places(self) -> Tensor:
        """Return the number of items of its row before each flat position, negative for padding, [N]."""

    @abstractmethod
    def of_items(self, states_ND: Tensor) -> Tensor:
        """Select the states of the items, row after row, from those of all positions, [M, D]."""

    def of_ends(self, states_ND: Tensor) -> Tensor:
        """Select the states of the last item of each row, [B, D]."""
        return states_ND.index_select(0, self.ends())

    def before(self, values_ND: Tensor, distance: int) -> Tensor:
        """Return the values `distance` items before each position in its row, zeros before the first item, [N, D]."""
        shifted_ND = F.pad(values_ND, (0, 0, distance, 0))[: len(values_ND)]
        return torch.where(self.places()[:, None] >= distance, shifted_ND, 0)

    @abstractmethod
    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        """Return the masks that `attend` adds to its scores: a position sees the items of its row up to itself."""

    @abstractmethod
    def attend(self, projected: Tensor, masks: list[Tensor], num_heads: int, dropout: float) -> Tensor:
        """Return the result of attention at each position, [N, D].

        Args:
            projected: queries, keys and values of all positions, [N, 3 D].
            masks: the result of `masks`.
            num_heads: number of heads, which split D.
            dropout: share of the attention weights to drop.
        """

    def attend_from_ends(
        self,
        states_ND: Tensor,
        query: Callable[[Tensor], Tensor],
        keys_values: Tensor,
        masks: list[Tensor],
        num_heads: int,
        dropout: float,
    ) -> Tensor:
        """Return the result of attention at the last item of each row, [B, D].

        `query` projects states to queries, and `keys_values`, [N, 2 D], are those of all positions.
        """
        projected = torch.cat((query(states_ND), keys_values), 1)
        return self.of_ends(self.attend(projected, masks, num_heads, dropout))

    def _additive(self, sees: Tensor, own: Tensor, window: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn flags of the keys that each query sees, [..., Q, K], into masks to add to scores.

        Args:
            sees: the keys of items; changed in place.
            own: view of `sees` at each query's own position, [..., Q].
            window: view of `sees` at the keys of the query's row, where padding is encoded.
            dtype: type of the scores.
        """
        blind = ~sees.any(-1)
        if self.sees_all:
            window.logical_or_(blind[..., None])
        else:
            own.logical_or_(blind)
        return sees.to(dtype).sub_(1).mul_(FAR)
