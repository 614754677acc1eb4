"""Looking up rows of a table.

On a GPU, PyTorch's own gradient sorts the indices in a dozen operations. Adding up rows by index takes two.

Axes: `R` rows of a table, `N` lookups, `D` width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def look_up(table_RD: Tensor, indices_N: Tensor, padding: int | None = None) -> Tensor:
    """Return the rows with the given indices, [N, D]; the row `padding`, if there is one, gets no gradient."""
    if table_RD.device.type == "cpu" or torch.compiler.is_compiling():
        return F.embedding(indices_N, table_RD, padding_idx=padding)
    looked_up: Tensor = SummedLookup.apply(table_RD, indices_N, padding)  # type: ignore[no-untyped-call]
    return looked_up


class SummedLookup(torch.autograd.Function):
    """A lookup whose gradient is summed by row, on a GPU in any order."""

    @staticmethod
    def forward(ctx: Any, table_RD: Tensor, indices_N: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(indices_N)
        ctx.shape, ctx.padding = table_RD.shape, padding
        return table_RD.index_select(0, indices_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None, None]:
        (indices_N,) = ctx.saved_tensors
        gradient_RD = gradient_ND.new_zeros(ctx.shape).index_add_(0, indices_N, gradient_ND)
        if ctx.padding is not None:
            gradient_RD[ctx.padding] = 0
        return gradient_RD, None, None
