"""A moving average of the weights: what is validated and kept in place of the last step's weights.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the exponential form.
"""

import copy

import torch
from torch import Tensor, nn

from elcrec.model.sequence_model import SequenceModel


class MovingAverage(nn.Module):
    """A model whose weights follow those of another. PyTorch's `AveragedModel` has the host wait at each step."""

    steps: Tensor

    def __init__(self, model: SequenceModel, decay: float) -> None:
        """Start from a copy of the model; a step keeps the share `decay` of the average.

        Early steps keep less, (1 + n) / (10 + n) after n, so that the first random weights are soon forgotten.
        """
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("steps", torch.tensor(0))  # On the CPU, wherever the weights are.
        self._decay = decay

    @torch.no_grad()
    def follow(self, model: SequenceModel) -> None:
        """Move the weights towards those of the model after a step of its training; take its buffers as they are."""
        taken = int(self.steps)
        kept = min(self._decay, (1 + taken) / (10 + taken)) if taken else 0.0
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), 1 - kept)
        for own, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(theirs)
        self.steps += 1
