"""Intents: cluster centres, learned with the model or found by k-means between epochs.

ELCRec learns them for its contrastive losses, and ELCRec2 as a part of the scores; ICLRec uses k-means.

Source: Liu et al., "End-to-end Learnable Clustering for Intent Learning in Recommendation" (NeurIPS 2024); Chen et
al., "Intent Contrastive Learning for Sequential Recommendation" (WWW 2022).

Axes: `K` intents, `D` hidden size, `N` vectors.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.ops.kmeans import kmeans
from elcrec.ops.lookup import look_up
from elcrec.registry import IntentKind


class Intents(nn.Module):
    """`K` intent centres, and the assignment of vectors to them."""

    centers_KD: Tensor
    points_per_center: ClassVar[int]
    """Largest number of users per centre for k-means."""
    placed_every_epoch: ClassVar[bool]
    """Whether k-means places the centres before every epoch, or only before the first."""
    shapes_vectors: ClassVar[bool] = False
    """Whether `shaped` changes vectors, so that intents affect the scores."""

    @torch.no_grad()
    def initialise(self, pooled_ND: Tensor, generator: torch.Generator) -> None:
        """Place the centres by k-means on the users' pooled states; until then they are random."""
        self.centers_KD.copy_(kmeans(pooled_ND, len(self.centers_KD), generator))
        self.after_step()

    @torch.no_grad()
    def nearest(self, vectors_ND: Tensor) -> Tensor:
        """Return the index of each vector's nearest centre, [N]."""
        # On CPUs, max is faster than argmax.
        return torch.addmm(self.half_norms(), vectors_ND, self.centers_KD.T, beta=-1).max(1).indices

    @torch.no_grad()
    def half_norms(self) -> Tensor:
        """Return half the squared length of each centre, [K]; products minus this order the centres by nearness."""
        return self.centers_KD.square().sum(1) / 2

    def lookup(self, intents_N: Tensor) -> Tensor:
        """Return the centres of the given intents as unit vectors, [N, D], with gradient if the centres are learned."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Restore the constraints on the centres after a step of the optimiser or an average of weights."""

    def shaped(self, vectors_ND: Tensor, means_ND: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return the vectors that score items, given the predicting states and each history's mean state."""
        return vectors_ND


class LearnedIntents(Intents):
    """ELCRec: unit vectors that the optimiser updates; `after_step` normalises them again."""

    # The default of faiss; more users do not change the centres noticeably.
    points_per_center = 256
    placed_every_epoch = False

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__()
        self.centers_KD = nn.Parameter(spherical(torch.randn(num_intents, hidden_size)))

    @torch.no_grad()
    def after_step(self) -> None:
        self.centers_KD.copy_(spherical(self.centers_KD))

    def lookup(self, intents_N: Tensor) -> Tensor:
        return look_up(self.centers_KD, intents_N)


class AssignedIntents(LearnedIntents):
    """ELCRec2: each history belongs to all intents by shares, and the centres are a part of the scores."""

    shapes_vectors = True
    _SHARPNESS = 10.0
    """Scale of the shares: the softmax is over cosines divided by a temperature of 0.1."""

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__(num_intents, hidden_size)
        self.strength = nn.Parameter(torch.ones(()))
        # After LayerNorm, a state has the length sqrt(D); initially an intent has half of that.
        self._reach = hidden_size**0.5 / 2

    def shares(self, means_ND: Tensor) -> Tensor:
        """Return the share of each intent in each mean state, [N, K]."""
        return (self._SHARPNESS * (spherical(means_ND) @ self.centers_KD.T)).softmax(1)

    def shaped(self, vectors_ND: Tensor, means_ND: Tensor) -> Tensor:
        """Add the centres of the history's intents by their shares."""
        shaped_ND: Tensor = vectors_ND + self._reach * self.strength * (self.shares(means_ND) @ self.centers_KD)
        return shaped_ND


class ClusteredIntents(Intents):
    """ICLRec: the centres of a k-means over all users, run again before every epoch and constant inside it."""

    # As in the published code: with 256 intents, all of a million users.
    points_per_center = 4_096
    placed_every_epoch = True

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("centers_KD", torch.randn(num_intents, hidden_size))

    def lookup(self, intents_N: Tensor) -> Tensor:
        return spherical(look_up(self.centers_KD, intents_N))


KINDS: dict[IntentKind, Callable[[int, int], Intents]] = {
    "learned": LearnedIntents,
    "clustered": ClusteredIntents,
    "assigned": AssignedIntents,
}


def spherical(vectors_ND: Tensor) -> Tensor:
    """Scale vectors to unit length."""
    return F.normalize(vectors_ND, dim=1)
