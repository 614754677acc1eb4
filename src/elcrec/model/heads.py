"""Heads: how states score items, by the product of transformed states and item embeddings.

Axes: `N` states, `R` item vectors, `D` hidden size.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elcrec.registry import HeadKind

_FIRST_TEMPERATURE = 0.07
_SHORTEST = 1e-12
"""Shorter states have no direction."""


class Head(nn.Module):
    """`dot`: the product of the state and the item's embedding, as in SASRec."""

    def queries(self, states_ND: Tensor) -> Tensor:
        """Return the queries that score items, [N, D]."""
        return states_ND

    def items(self, vectors_RD: Tensor) -> Tensor:
        """Return the item vectors to score, from embeddings, [R, D]; zeros stay zeros."""
        return vectors_RD


class Cosine(Head):
    """`cosine`: the cosine of both over a learned temperature, so that no item scores high only by its length.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
    section 2.3, from which the initial temperature is taken.
    """

    def __init__(self) -> None:
        """Start at a temperature of 0.07."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1 / _FIRST_TEMPERATURE).log())

    def queries(self, states_ND: Tensor) -> Tensor:
        """Return unit vectors over the temperature."""
        lengths_N1 = torch.linalg.vector_norm(states_ND, dim=-1, keepdim=True).clamp_min(_SHORTEST)
        queries_ND: Tensor = states_ND * (self.log_scale.exp() / lengths_N1)
        return queries_ND

    def items(self, vectors_RD: Tensor) -> Tensor:
        """Return unit vectors."""
        units_RD: Tensor = _UnitRows.apply(vectors_RD)  # type: ignore[no-untyped-call]
        return units_RD


class _UnitRows(torch.autograd.Function):
    """Each row over its length; their gradient takes four passes over the table, half of what it takes by PyTorch."""

    @staticmethod
    def forward(ctx: Any, vectors_RD: Tensor) -> Tensor:
        lengths_R1 = torch.linalg.vector_norm(vectors_RD, dim=-1, keepdim=True).clamp_min(_SHORTEST)
        units_RD: Tensor = vectors_RD / lengths_R1
        ctx.save_for_backward(units_RD, lengths_R1)
        return units_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RD: Tensor) -> Tensor:
        """Take away what would change a row's length."""
        units_RD, lengths_R1 = ctx.saved_tensors
        along_R1 = (gradient_RD * units_RD).sum(-1, keepdim=True)
        across_RD: Tensor = torch.addcmul(gradient_RD, units_RD, along_R1, value=-1).div_(lengths_R1)
        return across_RD


HEADS = cast("dict[HeadKind, Callable[[], Head]]", {"dot": Head, "cosine": Cosine})
