"""A mixer of differences between a state and earlier states, at several distances.

Axes: `N` flat positions, `D` hidden size.
"""

import torch
from torch import Tensor, nn

from elcrec.config import EncoderConfig
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer

_FIRST_STRENGTH = 0.1


class Differences(Mixer):
    """A linear layer over a learned mean of the differences between a state and earlier ones at given distances.

    Before a row's first item there are zeros. As a branch, it is initially close to `skip`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers; initially all distances have equal weight."""
        super().__init__(config)
        self.logits = nn.Parameter(torch.zeros(len(config.distances)))
        self.strength = nn.Parameter(torch.tensor(_FIRST_STRENGTH))
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:  # noqa: ARG002 - as Mixer
        """Mix, [N, D] to [N, D]."""
        shares = self.logits.softmax(0).unbind()
        earlier = (rows.before(states_ND, distance) for distance in self.config.distances)
        # The shares add up to 1, so the state itself can be taken out of the sum.
        change_ND = states_ND - torch.stack(
            [share * before for share, before in zip(shares, earlier, strict=True)]
        ).sum(0)
        mixed: Tensor = self.strength * self.out(change_ND)
        return mixed
