"""The base class of mixers, with which a block mixes the positions of a row (docs/extending.md).

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
    """A function of each row's states, in which a position sees its own state and earlier ones.

    A subclass needs one method, `forward`. `last`, `alone` and `last_alone` follow from it; a subclass may override
    them to give the same result with less work.

    Attributes:
        knows_places: whether it encodes positions itself; else the encoder adds position embeddings.
    """

    knows_places: ClassVar[bool] = False

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers; the encoder draws the weights of linear layers and embeddings."""
        super().__init__()
        self.config = config

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Mix, [N, D] to [N, D]; results at padding are meaningless. `masks` are those of `rows`, for attention."""
        raise NotImplementedError

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Return the result of `forward` at the last item of each row, [B, D]."""
        return rows.of_ends(self(states_ND, rows, masks))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Return the result of `forward` for one row without padding, in evaluation, [L, D] to [L, D]."""
        rows = group_rows(Ragged.of(np.ones(len(states_LD), np.int64), [len(states_LD)]), states_LD.device)
        mixed_LD: Tensor = self(states_LD, rows, rows.masks(states_LD.dtype))
        return mixed_LD

    def last_alone(self, states_LD: Tensor) -> Tensor:
        """Return the result of `alone` at the last item, [L, D] to [1, D]."""
        return self.alone(states_LD)[-1:]
