"""Two augmented views of each sequence, for a whole batch at once.

For each view one of crop, mask and reorder is drawn (Chen et al., WWW 2022, with the lengths and bounds of the
published code). One sort of random keys implements masks and reorders; a crop is a span of its row. Nothing here makes
the host wait for a value from the GPU.

Axes: `B` rows, `M` positions of all rows, one row after another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elcrec.config import ViewConfig
from elcrec.data.dataset import PADDING

_CROP, _MASK, _REORDER = 0, 1, 2


class ViewPlan(NamedTuple):
    """The plan of each row's view: its length, the operation, its first position and its number of items, [B] each."""

    lengths_B: Tensor
    operation_B: Tensor
    start_B: Tensor
    touched_B: Tensor

    @classmethod
    def draw(cls, lengths_B: Tensor, config: ViewConfig, generator: torch.Generator | None) -> "ViewPlan":
        """Draw a view of every row, of at least one item; `generator` is on their device, or `None`: PyTorch's own."""
        device = lengths_B.device
        operation_B = torch.randint(3, lengths_B.shape, generator=generator, device=device)
        shares = torch.tensor([config.crop, config.mask, config.reorder], dtype=torch.float64, device=device)
        touched_B = (shares[operation_B] * lengths_B).long()
        uniform_B = torch.rand(lengths_B.shape, dtype=torch.float64, generator=generator, device=device)
        # A run over the whole row starts at 0; otherwise all starts are equally likely.
        start_B = (uniform_B * (lengths_B - touched_B)).long()
        return cls(lengths_B, operation_B, start_B, touched_B)

    @classmethod
    def of_nothing(cls, shape: Sequence[int], device: torch.device) -> "ViewPlan":
        """Return plans that leave empty rows unchanged."""
        nothing = torch.zeros(*shape, dtype=torch.int64, device=device)
        return cls(nothing, torch.full_like(nothing, _REORDER), nothing.clone(), nothing.clone())

    def spans(self, window: int) -> tuple[Tensor, Tensor]:
        """Return the start of each view in its row, and its length, [B] each; at most the last `window` items stay."""
        crops_B = self.operation_B == _CROP
        kept_B = torch.where(crops_B, self.touched_B.clamp(min=1), self.lengths_B)
        ends_B = torch.where(crops_B, self.start_B + kept_B, self.lengths_B)
        kept_B = kept_B.clamp(max=window)
        return ends_B - kept_B, kept_B


def apply_plan(
    plan: ViewPlan, items_M: Tensor, row_M: Tensor, place_M: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Mask and reorder whole rows (for crops see `ViewPlan.spans`); return the items, 0 if masked, [M].

    `row_M` is the row of each item, ascending, and `place_M` its position there. The generator draws the masked items
    and the new order.
    """
    each = ViewPlan(*(part[row_M] for part in plan))
    random_M = torch.rand(items_M.shape, dtype=torch.float64, generator=generator, device=items_M.device)
    masks_M, reorders_M = each.operation_B == _MASK, each.operation_B == _REORDER
    # Keys from 0 to 1 inside a row: random for a mask, random inside the run of a reorder, elsewhere the position. They
    # are halved, because a key rounded up to 1 would belong to the next row.
    in_run_M = (place_M >= each.start_B) & (place_M < each.start_B + each.touched_B)
    shuffled_M = torch.where(reorders_M & in_run_M, each.start_B + random_M * each.touched_B, place_M.double())
    key_M = torch.where(masks_M, random_M, shuffled_M / each.lengths_B)
    order_M = torch.argsort(row_M + key_M / 2)
    rank_M = torch.empty_like(order_M).index_copy_(0, order_M, place_M)
    items_M = torch.where(reorders_M, items_M[order_M], items_M)
    return items_M.masked_fill(masks_M & (rank_M < each.touched_B), PADDING)
