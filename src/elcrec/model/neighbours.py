"""Neighbours of items: what an item of a history adds to the scores of a few others, beside the product of vectors.

Axes: `B` histories, `E` pairs of an item of a history and a neighbour, `V` items, `K` neighbours of an item.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.data.ragged import IntArray, Ragged
from elcrec.ops.device import to_device

Floats = npt.NDArray[np.float32]


class Additions(NamedTuple):
    """What histories add to scores: the row, the item and the amount of each addition; a pair may occur twice, [E]."""

    rows: Tensor
    items: Tensor
    amounts: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Additions"]) -> "Additions":
        """Return all additions of these."""
        return cls(*map(torch.cat, zip(*parts, strict=True))) if len(parts) > 1 else parts[0]

    def to_items(self, numbers_V: Tensor) -> "Additions":
        """Return additions to the same items by other numbers, such as those of another catalogue."""
        return self._replace(items=numbers_V.to(self.items.device)[self.items])

    def of(self, items_C: Tensor, num_rows: int) -> Tensor:
        """Return the sum of the additions of each row to each of some items, [B, C]."""
        matched_EC = self.amounts[:, None] * (self.items[:, None] == items_C)
        return matched_EC.new_zeros(num_rows, len(items_C)).index_add_(0, self.rows, matched_EC)

    def onto(self, scores_BV: Tensor) -> None:
        """Add to the scores of all items, in place."""
        rows, items, amounts = (part.to(scores_BV.device) for part in self)
        if scores_BV.device.type == "cpu":
            # Several times as fast as below for the few additions of a request.
            scores_BV.view(-1).index_add_(0, rows * scores_BV.shape[1] + items, amounts)
        else:
            # Sums in the same order every time, which `index_add_` does not promise on a GPU.
            scores_BV.index_put_((rows, items), amounts, accumulate=True)


class Neighbours(nn.Module):
    """The neighbours of each item, and how much it adds to their scores.

    Attributes:
        items_VK: neighbours of each item; 0 where there are fewer, int32.
        weights_VK: what each adds, in units of the scores; 0 where there are fewer.
    """

    items_VK: Tensor
    weights_VK: Tensor

    def __init__(self, num_items: int, kept: int) -> None:
        """Start without neighbours; `kept` is K."""
        super().__init__()
        self.register_buffer("items_VK", torch.zeros(num_items + 1, kept, dtype=torch.int32))
        self.register_buffer("weights_VK", torch.zeros(num_items + 1, kept))

    @classmethod
    def of(cls, items_VK: Tensor, weights_VK: Tensor) -> Self:
        """Return neighbours with these values."""
        made = cls(len(items_VK) - 1, items_VK.shape[1]).to(items_VK.device)
        made.load_state_dict({"items_VK": items_VK, "weights_VK": weights_VK})
        return made

    def times(self, strength: float) -> Self:
        """Return the same neighbours with so many times the weights."""
        return type(self).of(self.items_VK, self.weights_VK * strength)

    def additions(self, histories: Ragged) -> Additions:
        """Return what histories add to scores; an item that occurs several times counts once."""
        width = len(self.items_VK)
        # Rows and items as one number each, so that repetitions are found at once.
        met_M = np.unique(histories.owners * width + histories.values)
        rows_M, items_M = (to_device(torch.from_numpy(part), self.items_VK.device) for part in np.divmod(met_M, width))
        items_MK = self.items_VK.index_select(0, items_M)
        weights_MK = self.weights_VK.index_select(0, items_M)
        return Additions(rows_M[:, None].expand_as(items_MK).flatten(), items_MK.flatten().long(), weights_MK.flatten())

    def add_alone(self, scores_V: Floats, items_M: IntArray) -> None:
        """Add what some different items add, in place: `additions` of one row without their overhead."""
        np.add.at(scores_V, self.items_VK.numpy()[items_M].ravel(), self.weights_VK.numpy()[items_M].ravel())

    def without(self, unknown_W: IntArray, num_items: int) -> Self:
        """Return the neighbours in a larger catalogue, where some items have none and are no neighbours."""
        added = (0, 0, 0, num_items + 1 - len(self.items_VK))
        known_V = torch.ones(num_items + 1, device=self.items_VK.device)
        known_V[torch.from_numpy(unknown_W.astype(np.int64)).to(known_V.device)] = 0
        items_VK = F.pad(self.items_VK, added)
        weights_VK = F.pad(self.weights_VK, added) * known_V[:, None] * known_V[items_VK.long()]
        return type(self).of(items_VK, weights_VK)
