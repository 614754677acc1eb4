"""Dropout with one random byte per element.

On a CPU, PyTorch's Bernoulli variables take as long as all matrix products of a small transformer together.

Axes: `H` heads, `B` rows, `Q` queries, `L` keys.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LEVELS = 256


class Dropout(nn.Dropout):
    """`nn.Dropout` with a cheaper mask on CPUs; CUDA keeps PyTorch's fused kernel."""

    def forward(self, states: Tensor) -> Tensor:
        """In training, zero a share `p` of the elements and scale the others."""
        if not self.training or self.p == 0:
            return states  # PyTorch's function takes 10 us to do so.
        if states.device.type != "cpu":
            return super().forward(states)
        (mask,) = dropout_masks([states.shape], self.p)
        return states * mask


def dropout_masks(shapes: Sequence[Sequence[int]], p: float) -> list[Tensor]:
    """Draw a mask for each shape, from PyTorch's default generator: 0, or the factor that keeps the mean at 1, float32.

    The probability of 0 is the multiple of 1/256 nearest to `p`, but never 0 or 1.
    """
    kept = min(max(round((1 - p) * _LEVELS), 1), _LEVELS - 1)
    sizes = [math.prod(shape) for shape in shapes]
    words = torch.empty(-(-sum(sizes) // 8), dtype=torch.int64).random_(-(2**63), None)
    flags = words.view(torch.uint8)[: sum(sizes)].lt_(kept)
    scaled = flags.to(torch.float32).mul_(_LEVELS / kept)
    return [part.view(*shape) for part, shape in zip(torch.split(scaled, sizes), shapes, strict=True)]


def attend_dropping(query_HBQd: Tensor, key_HBLd: Tensor, value_HBLd: Tensor, mask_BQL: Tensor, drop: Tensor) -> Tensor:
    """Attention with given dropout masks on its weights, which PyTorch's fused kernel for CPUs does not support."""
    query, key, value = (heads.flatten(0, 1) for heads in (query_HBQd, key_HBLd, value_HBLd))
    mask = mask_BQL.repeat(len(query_HBQd), 1, 1)
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=1 / math.sqrt(query.shape[-1]))
    return torch.bmm(scores.softmax(-1) * drop, value).view(query_HBQd.shape)
