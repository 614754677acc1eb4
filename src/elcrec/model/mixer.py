"""What a block mixes the positions of a row with: the seam for attention, filters, convolutions and differences.

Axes: `B` rows, `N` flat positions, `L` items of a row alone, `D` hidden size.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from elcrec.config import EncoderConfig
from elcrec.data.ragged import Ragged
from elcrec.model.grouping import group_rows
from elcrec.model.layout import Layout


class Mixer(nn.Module):
    """A function of each row's states, of which a position sees its own and those before.

    A subclass has one method, `forward`. `last` and `alone` follow from it; a subclass may override them with the same
    result for less work.

    Attributes:
        knows_places: whether it tells by itself how far apart items are; else the encoder adds position embeddings.
    """

    knows_places: ClassVar[bool] = False

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers; the encoder draws the weights of linear layers and embeddings."""
        super().__init__()
        self.config = config

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Mix, [N, D] to [N, D]; what padded positions get is noise. `masks` are those of `rows`, for attention."""
        raise NotImplementedError

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Return what `forward` gives at the last item of each row, [B, D]."""
        return rows.of_ends(self(states_ND, rows, masks))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Return what `forward` gives for one row without padding, in evaluation, [L, D] to [L, D]."""
        rows = group_rows(Ragged.of(np.ones(len(states_LD), np.int64), [len(states_LD)]), states_LD.device)
        mixed_LD: Tensor = self(states_LD, rows, rows.masks(states_LD.dtype))
        return mixed_LD
