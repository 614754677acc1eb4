"""Two augmented views of each sequence, for a whole batch at once.

For each view one of crop, mask and reorder is drawn (Chen et al., WWW 2022, with the lengths and bounds of the
published code). One sort of random keys serves all three.

Axes: `B` rows, `M` items of all rows, one after another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elcrec.config import ViewConfig
from elcrec.data.dataset import PADDING

_CROP, _MASK, _REORDER = 0, 1, 2


@dataclass(frozen=True)
class _Plan:
    """What happens to each row: which operation, from which place on, over how many items."""

    operation: Tensor
    start: Tensor
    touched: Tensor

    def of(self, rows: Tensor) -> "_Plan":
        return _Plan(self.operation[rows], self.start[rows], self.touched[rows])


def augment(
    items_M: Tensor, lengths_B: Tensor, config: ViewConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one view of every row.

    Args:
        items_M: item indices of all rows, one row after another, int64.
        lengths_B: length of each row, at least 1, int64.
        config: shares that crop, mask and reorder touch.
        generator: draws the operations and their places.

    Returns:
        The views' items, row after row (0 where masked), and their lengths.
    """
    plan = _draw(lengths_B, config, generator)
    row_M = torch.repeat_interleave(torch.arange(len(lengths_B)), lengths_B)
    offset_M = (lengths_B.cumsum(0) - lengths_B)[row_M]
    each = plan.of(row_M)
    place_M = torch.arange(len(items_M)) - offset_M

    order_M = torch.argsort(row_M * (float(lengths_B.max()) + 1) + _keys(each, place_M, generator))
    rank_M = torch.empty_like(order_M)
    rank_M[order_M] = place_M
    shuffled_M = torch.where(each.operation == _REORDER, items_M[order_M], items_M)
    viewed_M = shuffled_M.masked_fill((each.operation == _MASK) & (rank_M < each.touched), PADDING)

    kept_B = torch.where(plan.operation == _CROP, plan.touched.clamp(min=1), lengths_B)
    kept_M = (each.operation != _CROP) | ((place_M >= each.start) & (place_M < each.start + kept_B[row_M]))
    return viewed_M[kept_M], kept_B


def _draw(lengths_B: Tensor, config: ViewConfig, generator: torch.Generator) -> _Plan:
    operation_B = torch.randint(3, lengths_B.shape, generator=generator)
    share_B = torch.tensor([config.crop, config.mask, config.reorder], dtype=torch.float64)[operation_B]
    touched_B = (share_B * lengths_B).long()
    uniform_B = torch.rand(lengths_B.shape, dtype=torch.float64, generator=generator)
    # A touched run of the whole row begins at 0; otherwise all starts are as likely.
    start_B = (uniform_B * (lengths_B - touched_B)).long()
    return _Plan(operation_B, start_B, touched_B)


def _keys(each: _Plan, place_M: Tensor, generator: torch.Generator) -> Tensor:
    """Sort keys inside a row: random for a mask, random inside the run of a reorder, elsewhere the place."""
    random_M = torch.rand(place_M.shape, dtype=torch.float64, generator=generator)
    in_run_M = (place_M >= each.start) & (place_M < each.start + each.touched)
    key_M = torch.where((each.operation == _REORDER) & in_run_M, each.start + random_M * each.touched, place_M.double())
    return torch.where(each.operation == _MASK, random_M, key_M)
