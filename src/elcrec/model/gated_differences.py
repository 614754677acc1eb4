"""A mixer that chooses, at each position, among a state and its first and second differences.

Source: the block of KERec (github.com/yyt-1219/KERec), which calls them velocities and accelerations. There a gate
reads the differences; here it reads the earlier states, of which they are linear functions.

Axes: `N` flat positions, `L` items of a row alone, `T` window, `D` hidden size, `F` a state and its differences, `G`
the state and earlier ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import EncoderConfig
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer

_FIRST_STRENGTH = 0.1


class GatedDifferences(Mixer):
    """A mean of the state, x_(t-k) - x_t and x_(t-2k) - 2 x_(t-k) + x_t for each distance k, with learned shares.

    A small network computes the shares from the states. Before a row's first item there are zeros.
    """

    taps_FG: Tensor
    _places_TG: Tensor
    _nothing_1D: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        """Create the gate; initially all shares are nearly equal."""
        super().__init__(config)
        width = config.hidden_size
        self._gaps = sorted({gap for distance in config.distances for gap in (0, distance, 2 * distance)})
        self.register_buffer("taps_FG", _taps(config.distances, self._gaps), persistent=False)
        # Of a row after a state of zeros, which stands for all that is before its first item.
        places_TG = torch.arange(1, config.window + 1)[:, None] - torch.tensor(self._gaps)
        self.register_buffer("_places_TG", places_TG.clamp(min=0), persistent=False)
        self.register_buffer("_nothing_1D", torch.zeros(1, width), persistent=False)
        self.gate = nn.Linear(len(self._gaps) * width, 2 * width)
        self.shares = nn.Linear(2 * width, len(self.taps_FG))
        self.strength = nn.Parameter(torch.tensor(_FIRST_STRENGTH))

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:  # noqa: ARG002 - as Mixer
        """Mix, [N, D] to [N, D]."""
        return self._mix(states_ND, lambda gap: rows.before(states_ND, gap))

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:  # noqa: ARG002 - as Mixer
        """Return the result of `forward` at the last item of each row, [B, D]."""
        return self._mix(rows.of_ends(states_ND), lambda gap: rows.of_ends(rows.before(states_ND, gap)))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Return the result of `forward` for one row without padding, in evaluation, [L, D] to [L, D]."""
        around_MD = self._around_alone(states_LD, self._places_TG[: len(states_LD)].flatten())
        return self._mixed(around_MD.view(len(states_LD), -1, states_LD.shape[1]))

    def last_alone(self, states_LD: Tensor) -> Tensor:
        around_GD = self._around_alone(states_LD, self._places_TG[len(states_LD) - 1])
        return torch.mm(self._weights(around_GD.view(1, -1)), around_GD)

    def _around_alone(self, states_LD: Tensor, places_M: Tensor) -> Tensor:
        return torch.cat((self._nothing_1D, states_LD)).index_select(0, places_M)

    def _mix(self, states_ND: Tensor, before: Callable[[int], Tensor]) -> Tensor:
        """Mix states with earlier ones; `before` returns those a number of items earlier, [N, D]."""
        return self._mixed(torch.stack([states_ND, *map(before, self._gaps[1:])], 1))

    def _mixed(self, around_NGD: Tensor) -> Tensor:
        return torch.bmm(self._weights(around_NGD.flatten(1))[:, None], around_NGD)[:, 0]

    def _weights(self, around_NX: Tensor) -> Tensor:
        """Return the weight of each state around each position, [N, G D] to [N, G]."""
        shares_NF = self.shares(F.silu(self.gate(around_NX))).softmax(1)
        return self.strength * torch.mm(shares_NF, self.taps_FG)


def _taps(distances: tuple[int, ...], gaps: list[int]) -> Tensor:
    """Return the weight of the state at each gap in the state itself and in each difference, [F, G]."""
    made: list[dict[int, float]] = [{0: 1.0}]
    for distance in distances:
        made += [{distance: 1.0, 0: -1.0}, {2 * distance: 1.0, distance: -2.0, 0: 1.0}]
    return torch.tensor([[weights.get(gap, 0.0) for gap in gaps] for weights in made])
