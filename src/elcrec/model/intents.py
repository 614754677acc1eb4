"""Intents: cluster centres, of sequences or of items.

ELCRec learns centres of sequences for its contrastive losses, ICLRec finds them by k-means between epochs. ELCRec2
learns centres of items.

Source: Liu et al., "End-to-end Learnable Clustering for Intent Learning in Recommendation" (NeurIPS 2024); Chen et
al., "Intent Contrastive Learning for Sequential Recommendation" (WWW 2022).

Axes: `K` intents, `D` hidden size, `N` vectors, `V` items and padding.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.ops.kmeans import half_norms, kmeans, nearest
from elcrec.ops.lookup import look_up
from elcrec.registry import IntentKind

_SHARES_TEMPERATURE = 0.1
_SHORTEST = 1e-12
"""Shorter vectors have no direction."""


class Intents(nn.Module):
    """`K` intent centres, and the assignment of vectors to them."""

    centers_KD: Tensor
    shapes_vectors: ClassVar[bool] = False
    """Whether `shaped` changes vectors, so that a history's intents affect the scores."""

    @torch.no_grad()
    def nearest(self, vectors_ND: Tensor) -> Tensor:
        """Return the index of each vector's nearest centre, [N]."""
        return nearest(vectors_ND, self.centers_KD)

    def prepared(self, table_VD: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return what `SequenceModel.encode_alone` needs of the weights and would compute anew for every request.

        It is half the squared length of each centre, [K]: products minus this order the centres by nearness.

        Args:
            table_VD: the item embeddings.
        """
        return half_norms(self.centers_KD)

    def after_step(self) -> None:
        """Restore the constraints on the centres after a step of the optimiser or an average of weights."""

    def shaped(self, vectors_ND: Tensor, means_ND: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return the vectors that score items, given the predicting states and each history's mean state."""
        return vectors_ND


class SequenceIntents(Intents):
    """Intents whose centres k-means places on the mean states of users' sequences."""

    points_per_center: ClassVar[int]
    """Largest number of users per centre for k-means."""
    placed_every_epoch: ClassVar[bool]
    """Whether k-means places the centres before every epoch, or only before the first."""

    @torch.no_grad()
    def initialise(self, pooled_ND: Tensor, generator: torch.Generator) -> None:
        """Place the centres by k-means on the users' pooled states; until then they are random."""
        self.centers_KD.copy_(kmeans(pooled_ND, len(self.centers_KD), generator))
        self.after_step()

    def lookup(self, intents_N: Tensor) -> Tensor:
        """Return the centres of the given intents as unit vectors, [N, D], with gradient if the centres are learned."""
        raise NotImplementedError


class LearnedIntents(SequenceIntents):
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
    """Each history belongs to all intents by shares, and the centres are a part of its scores.

    Earlier versions of ELCRec2 trained this; such models are still read.
    """

    shapes_vectors = True

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__(num_intents, hidden_size)
        self.strength = nn.Parameter(torch.ones(()))
        # After LayerNorm, a state has the length sqrt(D); initially an intent has half of that.
        self._reach = hidden_size**0.5 / 2

    def shares(self, means_ND: Tensor) -> Tensor:
        """Return the share of each intent in each mean state, [N, K]."""
        return _shares(means_ND, self.centers_KD)

    def shaped(self, vectors_ND: Tensor, means_ND: Tensor) -> Tensor:
        """Add the centres of the history's intents by their shares."""
        shaped_ND: Tensor = vectors_ND + self._reach * self.strength * (self.shares(means_ND) @ self.centers_KD)
        return shaped_ND


class ClusteredIntents(SequenceIntents):
    """ICLRec: the centres of a k-means over all users, run again before every epoch and constant inside it."""

    # As in the published code: with 256 intents, all of a million users.
    points_per_center = 4_096
    placed_every_epoch = True

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("centers_KD", torch.randn(num_intents, hidden_size))

    def lookup(self, intents_N: Tensor) -> Tensor:
        return spherical(look_up(self.centers_KD, intents_N))


class ItemIntents(Intents):
    """ELCRec2: items belong to all intents by shares, and a history's intent is the one with the largest mean share.

    A centre is the direction of the mean of its items' directions.
    """

    def __init__(self, num_intents: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("centers_KD", torch.zeros(num_intents, hidden_size))

    def shares(self, vectors_ND: Tensor) -> Tensor:
        """Return the share of each intent in items with these vectors, [N, K]."""
        return _shares(vectors_ND, self.centers_KD)

    def prepared(self, table_VD: Tensor) -> Tensor:
        """Return the shares of every item, [V + 1, K]."""
        return self.shares(table_VD)

    @torch.no_grad()
    def place(self, table_VD: Tensor, intent_V: Tensor) -> None:
        """Place the centres among the items' vectors, given each item's intent or -1."""
        members = (intent_V >= 0).nonzero().flatten()
        sums_KD = torch.zeros_like(self.centers_KD)
        self.centers_KD.copy_(spherical(sums_KD.index_add_(0, intent_V[members], spherical(table_VD[members]))))


KINDS: dict[IntentKind, Callable[[int, int], Intents]] = {
    "learned": LearnedIntents,
    "clustered": ClusteredIntents,
    "assigned": AssignedIntents,
    "items": ItemIntents,
}


def _shares(vectors_ND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the softmax of the cosines of vectors and centres at a temperature of 0.1, [N, K]."""
    return (spherical(vectors_ND) @ centers_KD.T / _SHARES_TEMPERATURE).softmax(1)


def spherical(vectors_ND: Tensor) -> Tensor:
    """Scale vectors to unit length."""
    return F.normalize(vectors_ND, dim=1, eps=_SHORTEST)
