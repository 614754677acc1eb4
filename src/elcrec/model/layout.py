"""How the rows of a batch lie in one flat array of positions: all that the encoder, its mixers and the losses know.

There are two layouts. `grouping` pads rows of similar length to one, for a CPU; `packing` puts rows one right after
another, for a GPU. In both a row is contiguous, and its items are aligned to the right of the window.

Axes: `B` rows, `N` flat positions, `M` items of all rows, row after row, `D` hidden size, `Q` queries, `K` keys.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FAR = 1e9
"""How far below its score a key is put that may not be seen: the weight is exactly 0 in float32."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which row each item belongs to.

    Attributes:
        lengths_B: length of each row, at least 1.
        row_M: row of each item; B after the last row.
    """

    lengths_B: Tensor
    row_M: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """Sum what the items of each row have, [M, …] to [B, …]; what stands after the last row counts nowhere."""
        sums = values.new_zeros(len(self.lengths_B) + 1, *values.shape[1:])
        return sums.index_add(0, self.row_M[: len(values)], values)[:-1]

    def mean(self, values_MD: Tensor) -> Tensor:
        """Average what the items of each row have, [M, D] to [B, D]."""
        return self.sum(values_MD) / self.lengths_B[:, None]

    def running_mean(self, values_MD: Tensor) -> Tensor:
        """Average what the items of each row up to each of them have, itself among them, [M, D].

        Summed in double precision: a row's sum is the difference of two sums over all rows before.
        """
        sums_MD = F.pad(values_MD.double().cumsum(0), (0, 0, 1, 0))
        first_R = F.pad(self.lengths_B.cumsum(0) - self.lengths_B, (0, 1))
        first_M = first_R[self.row_M[: len(values_MD)]]
        counts_M = torch.arange(1, len(values_MD) + 1, device=values_MD.device) - first_M
        means_MD: Tensor = (sums_MD[1:] - sums_MD[first_M]) / counts_M[:, None]
        return means_MD.to(values_MD.dtype)


@dataclass(frozen=True, kw_only=True)
class Layout(Rows, ABC):
    """A batch of sequences, ready for the encoder.

    Attributes:
        items_N: item indices, int64; 0 where padded or masked.
        ages_N: how many positions each flat position stands before the end of its row.
        sees_all: whether a position that sees no item sees its whole row instead of itself, as padding does that the
            published code encodes.
    """

    items_N: Tensor
    ages_N: Tensor
    sees_all: bool = False

    @abstractmethod
    def ends(self) -> Tensor:
        """Return the flat position of the last item of each row, [B]."""

    @abstractmethod
    def places(self) -> Tensor:
        """Return how many items of its row stand before each flat position, negative where that is padding, [N]."""

    @abstractmethod
    def of_items(self, states_ND: Tensor) -> Tensor:
        """Take the states of the items, row after row, out of those of all positions, [M, D]."""

    def of_ends(self, states_ND: Tensor) -> Tensor:
        """Take the states of the last item of each row, [B, D]."""
        return states_ND.index_select(0, self.ends())

    def before(self, values_ND: Tensor, distance: int) -> Tensor:
        """Return what stands so many items before each position in its row, zeros before the first item, [N, D]."""
        shifted_ND = F.pad(values_ND, (0, 0, distance, 0))[: len(values_ND)]
        return torch.where(self.places()[:, None] >= distance, shifted_ND, 0)

    @abstractmethod
    def masks(self, dtype: torch.dtype) -> list[Tensor]:
        """Return what `attend` adds to its scores: a position sees the items of its row up to itself."""

    @abstractmethod
    def attend(self, projected: Tensor, masks: list[Tensor], num_heads: int, dropout: float) -> Tensor:
        """Return what each position attends to in its row, [N, D].

        Args:
            projected: queries, keys and values of all positions, [N, 3 D].
            masks: what `masks` returned.
            num_heads: heads that D is split into.
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
        """Return what the last item of each row attends to, [B, D].

        `query` projects states, of the last items or of all, and `keys_values`, [N, 2 D], are those of all positions.
        """
        projected = torch.cat((query(states_ND), keys_values), 1)
        return self.of_ends(self.attend(projected, masks, num_heads, dropout))

    def _additive(self, sees: Tensor, own: Tensor, window: Tensor, dtype: torch.dtype) -> Tensor:
        """Turn which keys each query sees, [..., Q, K], into what is added to scores.

        Args:
            sees: the keys of items; changed in place.
            own: view of `sees` at each query's own position, [..., Q].
            window: view of `sees` at the keys of the query's row, where padding is encoded.
            dtype: of the scores.
        """
        blind = ~sees.any(-1)
        if self.sees_all:
            window.logical_or_(blind[..., None])
        else:
            own.logical_or_(blind)
        return sees.to(dtype).sub_(1).mul_(FAR)
