"""Intents: cluster centres that are learned with the model (ELCRec) or found by k-means between epochs (ICLRec).

Source: Liu et al., "End-to-end Learnable Clustering for Intent Learning in Recommendation" (NeurIPS 2024); Chen et
al., "Intent Contrastive Learning for Sequential Recommendation" (WWW 2022).

Axes: `K` intents, `D` hidden size, `B` rows, `N` vectors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.model.lookup import look_up

_ITERATIONS = 20
_ASSIGN_BLOCK = 16384


class Intents(nn.Module):
    """`K` intent centres and which of them a vector belongs to.

    Attributes:
        points_per_center: most users a centre that k-means is to see.
    """

    centers_KD: Tensor
    points_per_center: int

    @torch.no_grad()
    def initialise(self, pooled_ND: Tensor, generator: torch.Generator) -> None:
        """Place the centres by k-means on the users' pooled states."""
        self.centers_KD.copy_(kmeans(pooled_ND, len(self.centers_KD), generator))

    @torch.no_grad()
    def nearest(self, vectors_ND: Tensor) -> Tensor:
        """Return the index of each vector's nearest centre, [N]."""
        # On CPUs max is faster than argmax.
        return torch.addmm(self.half_norms(), vectors_ND, self.centers_KD.T, beta=-1).max(1).indices

    @torch.no_grad()
    def half_norms(self) -> Tensor:
        """Half the squared length of each centre, [K]; less this, products order the centres by nearness."""
        return self.centers_KD.square().sum(1) / 2

    def lookup(self, intents_N: Tensor) -> Tensor:
        """Return unit vectors to the centres of the named intents, [N, D]."""
        raise NotImplementedError


class LearnedIntents(Intents):
    """ELCRec: unit vectors that the optimiser moves; `renormalise` brings them back to the sphere after a step."""

    # They are placed once; faiss takes as many by default, as more move no centre.
    points_per_center = 256

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        """Draw random unit centres; `initialise` puts them where the users are."""
        super().__init__()
        self.centers_KD = nn.Parameter(spherical(torch.randn(num_intents, hidden_size)))

    @torch.no_grad()
    def initialise(self, pooled_ND: Tensor, generator: torch.Generator) -> None:
        """Place the centres by k-means on the users' pooled states, then on the sphere."""
        super().initialise(pooled_ND, generator)
        self.renormalise()

    @torch.no_grad()
    def renormalise(self) -> None:
        """Project the centres onto the unit sphere, in place."""
        self.centers_KD.copy_(spherical(self.centers_KD))

    def lookup(self, intents_N: Tensor) -> Tensor:
        """Return the centres of the named intents, [N, D], with gradient."""
        return look_up(self.centers_KD, intents_N)


class ClusteredIntents(Intents):
    """ICLRec: the centres of a k-means over all users, run again before every epoch and constant inside it."""

    # As many as the published code sets: with 256 intents, all of a million users.
    points_per_center = 4_096

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        """Draw random centres; `initialise` puts them where the users are."""
        super().__init__()
        self.register_buffer("centers_KD", torch.randn(num_intents, hidden_size))

    def lookup(self, intents_N: Tensor) -> Tensor:
        """Return the unit vectors to the named centres, [N, D], without gradient."""
        return spherical(look_up(self.centers_KD, intents_N))


def spherical(vectors_ND: Tensor) -> Tensor:
    """Scale vectors to unit length."""
    return F.normalize(vectors_ND, dim=1)


def kmeans(points_ND: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm from distinct random points; a cluster that empties keeps its centre.

    Args:
        points_ND: at least `num_clusters` points.
        num_clusters: number of centres (K).
        generator: draws the first centres.

    Returns:
        The centres, [K, D].
    """
    chosen = torch.randperm(len(points_ND), generator=generator)[:num_clusters]
    centers_KD = points_ND[chosen.to(points_ND.device)].clone()
    for _ in range(_ITERATIONS):
        centers_KD = _lloyd_step(points_ND, centers_KD)
    return centers_KD


def _lloyd_step(points_ND: Tensor, centers_KD: Tensor) -> Tensor:
    sums_KD, counts_K = torch.zeros_like(centers_KD), centers_KD.new_zeros(len(centers_KD))
    for block_ND in torch.split(points_ND, _ASSIGN_BLOCK):
        nearest_N = (block_ND @ centers_KD.T - 0.5 * centers_KD.square().sum(1)).argmax(1)
        sums_KD.index_add_(0, nearest_N, block_ND)
        counts_K += torch.bincount(nearest_N, minlength=len(centers_KD))
    means_KD = sums_KD / counts_K.clamp(min=1)[:, None]
    return torch.where(counts_K[:, None] > 0, means_KD, centers_KD)
