"""A moving average of the weights, validated and kept instead of the last step's weights.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the exponential form.
"""

import copy

import torch
from torch import Tensor, nn

from elcrec.model.sequence_model import SequenceModel


class MovingAverage(nn.Module):
    """A model whose weights follow those of another. PyTorch's `AveragedModel` makes the host wait at each step."""

    steps: Tensor

    def __init__(self, model: SequenceModel, decay: float, *, items_apart: bool = False) -> None:
        """Start from a copy of the model; a step keeps the share `decay` of the average.

        Early steps keep less, (1 + n) / (10 + n) after n steps, so that the random initial weights are soon forgotten.
        Item vectors that are averaged separately (`LazyItems`) are not touched here.
        """
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("steps", torch.tensor(0))  # On the CPU, even if the weights are on a GPU.
        self.decay, self._items_apart = decay, items_apart

    @property
    def own_vectors(self) -> Tensor:
        """The average of what is learned of each item alone, [V + 1, D]."""
        return self.module.own_vectors.detach()

    @torch.no_grad()
    def follow(self, model: SequenceModel) -> None:
        """Move the weights towards those of the model after a training step."""
        taken = int(self.steps)
        kept = min(self.decay, (1 + taken) / (10 + taken)) if taken else 0.0
        own, theirs = (weights_of(each, but_items=self._items_apart) for each in (self.module, model))
        torch._foreach_lerp_(own, theirs, 1 - kept)
        self.steps += 1

    @torch.no_grad()
    def copy_buffers(self, model: SequenceModel) -> None:
        """Copy what is no weight, which only a use of the average needs, not a step."""
        for ours, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            ours.copy_(buffer)


def weights_of(model: SequenceModel, *, but_items: bool) -> list[Tensor]:
    """Return the parameters of a model, without the items' own vectors if these are updated separately."""
    items = model.own_vectors if but_items else None
    return [parameter for parameter in model.parameters() if parameter is not items]
