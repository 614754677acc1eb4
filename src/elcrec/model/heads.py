"""How states score items: by the product of what a head makes of both.

Axes: `N` states, `R` item vectors, `D` hidden size.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.registry import HeadKind

_FIRST_TEMPERATURE = 0.07


class Head(nn.Module):
    """`dot`: the product of the state and the item's embedding, as in SASRec."""

    def queries(self, states_ND: Tensor) -> Tensor:
        """Return what items are scored with, [N, D]."""
        return states_ND

    def items(self, vectors_RD: Tensor) -> Tensor:
        """Return what is scored of item embeddings, [R, D]; zeros stay zeros."""
        return vectors_RD


class Cosine(Head):
    """`cosine`: the cosine of both over a temperature that is learned, so that no item scores high by its length.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
    section 2.3, whose first temperature this is.
    """

    def __init__(self) -> None:
        """Begin at a temperature of 0.07."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1 / _FIRST_TEMPERATURE).log())

    def queries(self, states_ND: Tensor) -> Tensor:
        """Return unit vectors over the temperature."""
        return F.normalize(states_ND, dim=-1) * self.log_scale.exp()

    def items(self, vectors_RD: Tensor) -> Tensor:
        """Return unit vectors."""
        return F.normalize(vectors_RD, dim=-1)


HEADS = cast("dict[HeadKind, Callable[[], Head]]", {"dot": Head, "cosine": Cosine})
