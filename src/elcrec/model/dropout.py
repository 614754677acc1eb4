"""Dropout whose random numbers cost next to nothing on a CPU.

PyTorch draws a Bernoulli variable an element, which takes as long on a CPU as all matrix products of a small
transformer together. One random byte an element is enough.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 256


class Dropout(nn.Dropout):
    """`nn.Dropout` with a cheaper mask on CPUs; CUDA keeps PyTorch's fused kernel."""

    def forward(self, states: Tensor) -> Tensor:
        """Zero a share `p` of the elements and scale the others, in training."""
        if not self.training or self.p == 0:
            return states
        if states.device.type != "cpu":
            return F.dropout(states, self.p)
        (mask,) = dropout_masks([states.shape], self.p)
        return states * mask


def dropout_masks(shapes: Sequence[Sequence[int]], p: float) -> list[Tensor]:
    """Draw a mask for each shape on the CPU: 0 with probability `p`, else what keeps the mean at 1, float32.

    A byte an element decides, so the probability is the nearest multiple of 1/256, but never 0 or 1; the scale fits
    it exactly. Draws from PyTorch's default generator.
    """
    kept = min(max(round((1 - p) * _LEVELS), 1), _LEVELS - 1)
    sizes = [math.prod(shape) for shape in shapes]
    words = torch.empty(-(-sum(sizes) // 8), dtype=torch.int64).random_(-(2**63), None)
    flags = words.view(torch.uint8)[: sum(sizes)].lt_(kept)
    scaled = flags.to(torch.float32).mul_(_LEVELS / kept)
    return [part.view(*shape) for part, shape in zip(torch.split(scaled, sizes), shapes, strict=True)]
