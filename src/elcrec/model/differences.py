"""What changed since some items before, at several distances.

Axes: `N` flat positions, `D` hidden size.
"""

import torch
from torch import Tensor, nn

from elcrec.config import EncoderConfig
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer

_FIRST_STRENGTH = 0.1


class Differences(Mixer):
    """A linear layer over a learned mean of the differences between a state and those at some distances before it.

    Before a row's first item stand zeros. As a branch it begins close to `skip`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers: all distances count alike at first."""
        super().__init__(config)
        self.logits = nn.Parameter(torch.zeros(len(config.distances)))
        self.strength = nn.Parameter(torch.tensor(_FIRST_STRENGTH))
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:  # noqa: ARG002 - a mixer's
        """Mix, [N, D] to [N, D]."""
        shares = self.logits.softmax(0).unbind()
        earlier = (rows.before(states_ND, distance) for distance in self.config.distances)
        # The shares' sum is 1, so that the state itself stands before the sum.
        change_ND = states_ND - torch.stack(
            [share * before for share, before in zip(shares, earlier, strict=True)]
        ).sum(0)
        mixed: Tensor = self.strength * self.out(change_ND)
        return mixed
