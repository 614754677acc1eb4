"""A moving average of the weights: what is validated and kept in place of the last step's weights.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the exponential form.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of the model whose weights follow those of the model with every `update_parameters`.

    Args:
        model: the model that is trained; buffers are copied as they are.
        decay: share of the average that is kept at a step. Early steps keep less, (1 + n) / (10 + n) after n, so that
            the first random weights are soon forgotten.
    """

    @torch.no_grad()
    def follow(averages: _Tensors, weights: _Tensors, steps: Tensor | int) -> None:
        taken = int(steps)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + taken) / (10 + taken)))

    return AveragedModel(model, multi_avg_fn=follow)
