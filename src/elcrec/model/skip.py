"""A mixer that does not mix: the branch that passes a block's states through.

Axes: `N` flat positions, `D` hidden size.
"""

import torch
from torch import Tensor

from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer


class Skip(Mixer):
    """Adds nothing to the residual."""

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:  # noqa: ARG002 - as Mixer
        """Return zeros, [N, D]."""
        return torch.zeros_like(states_ND)

    def alone(self, states_LD: Tensor) -> Tensor:
        return torch.zeros_like(states_LD)
