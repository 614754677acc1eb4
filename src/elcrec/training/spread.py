"""Spreading what items learn: an item's vector has a part of the vectors of the items met with it.

Axes: `V` items, `E` pairs of an item and one that is similar to it, `D` hidden size.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.data.ragged import Ragged
from elcrec.ops.neighbours import Weights, co_occurrences, most_similar

_ITEMS_AT_ONCE = 4096
_MOST_ITERATIONS = 200
_TOLERANCE = 1e-4
"""Relative error of vectors that is as good as none."""


class Spread(nn.Module):
    """Adds to each item's vector a share of the mean of those of the items most similar to it, weighted by similarity.

    One layer of the propagation of LightGCN (He et al., SIGIR 2020), between items.
    """

    def __init__(self, weights_VV: csr_array) -> None:
        """Keep the weights, which do not change; row i has those of the items similar to item i."""
        super().__init__()
        for name, weights in (("to", weights_VV), ("from", csr_array(weights_VV.T))):
            weights.sort_indices()
            # Found anew from the data when a training resumes, so they are no part of a checkpoint.
            self.register_buffer(f"{name}_starts", torch.from_numpy(weights.indptr[:-1].astype(np.int32)), False)
            self.register_buffer(f"{name}_items", torch.from_numpy(weights.indices.astype(np.int32)), False)
            self.register_buffer(f"{name}_weights", torch.from_numpy(weights.data.astype(np.float32)), False)

    @classmethod
    def over(cls, histories: Ragged, num_items: int, share: float, most: int) -> Self:
        """Find the items most similar to each item, by the cosine of the histories that hold them.

        Args:
            histories: training histories.
            num_items: V.
            share: sum of the weights of an item's similar ones; its own is 1.
            most: number of similar items at most.
        """
        counts = co_occurrences(histories.values, histories.offsets, num_items)
        similar = ((block, most_similar(counts, block, most)) for block in counts.blocks(_ITEMS_AT_ONCE))
        found = Weights.joined(each.weighted(block, each.cosines_TC) for block, each in similar)
        shares_E = found.weights * share / np.bincount(found.targets, found.weights)[found.targets]
        shape = num_items + 1, num_items + 1
        return cls(csr_array((shares_E, (found.targets, found.items)), shape=shape) + eye_array(num_items + 1))

    def forward(self, own_VD: Tensor) -> Tensor:
        """Return the sums, [V + 1, D]; an item that was always alone has its own vector."""
        sums_VD: Tensor = _SparseSums.apply(own_VD, self._sums_of)  # type: ignore[no-untyped-call]
        return sums_VD

    @torch.no_grad()
    def with_sums(self, own_VD: Tensor, rows_R: Tensor, sums_RD: Tensor) -> Tensor:
        """Return the own vectors, changed in some rows so that the sums of these rows are the given ones, [V + 1, D].

        By least squares with conjugate gradients (CGLS, Björck, "Numerical Methods for Least Squares Problems", 1996,
        section 7.4), each dimension by itself: a spread above 1 is no contraction, so it cannot be undone step by step.

        Args:
            own_VD: the own vectors at first.
            rows_R: the rows to change, each once.
            sums_RD: the sums wanted in these rows.
        """
        changed_V1 = own_VD.new_zeros(len(own_VD), 1).index_fill_(0, rows_R, 1)
        found_VD, wanted_VD = own_VD.clone(), torch.zeros_like(own_VD).index_copy_(0, rows_R, sums_RD)
        rest_VD = (wanted_VD - self(found_VD)) * changed_V1
        direction_VD = slope_VD = self._sums_of("from", rest_VD) * changed_V1
        steepness_D, least = slope_VD.square().sum(0), torch.finfo(own_VD.dtype).tiny
        for _ in range(_MOST_ITERATIONS):
            if rest_VD.norm() <= _TOLERANCE * wanted_VD.norm():
                break
            image_VD = self(direction_VD) * changed_V1
            step_D = steepness_D / image_VD.square().sum(0).clamp(min=least)
            found_VD.addcmul_(direction_VD, step_D)
            rest_VD.addcmul_(image_VD, step_D, value=-1)
            slope_VD = self._sums_of("from", rest_VD) * changed_V1
            before_D, steepness_D = steepness_D, slope_VD.square().sum(0)
            direction_VD = slope_VD + steepness_D / before_D.clamp(min=least) * direction_VD
        return found_VD

    def _sums_of(self, direction: str, values_VD: Tensor) -> Tensor:
        starts, items, weights = (self.get_buffer(f"{direction}_{name}") for name in ("starts", "items", "weights"))
        return F.embedding_bag(items, values_VD, starts, per_sample_weights=weights, mode="sum")


class _SparseSums(torch.autograd.Function):
    """Sums over sparse weights; their gradient is sums over the transposed weights, far faster than scattering."""

    @staticmethod
    def forward(ctx: Any, own_VD: Tensor, sums_of: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Sum over the rows."""
        ctx.sums_of = sums_of
        return sums_of("to", own_VD)

    @staticmethod
    def backward(ctx: Any, gradient_VD: Tensor) -> tuple[Tensor, None]:
        """Sum over the columns."""
        return ctx.sums_of("from", gradient_VD.contiguous()), None
