"""Intents of items in training: which intents an item has, and the centres that are parts of its vector.

While a model trains, an item's vector is the sum of a vector of its own and of its intents' centres, which all items of
an intent share: what one item learns, the others learn with it. It may have a part of the own vectors of similar items,
too. The sum is a parametrisation of the item table, so everything else reads the table as ever, and `settle` leaves an
ordinary table when training ends.

Axes: `V` items, `N` items in training, `K` intents, `D` hidden size, `E` eigenvectors.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from elcrec.config import IntentConfig
from elcrec.data.dataset import PADDING
from elcrec.errors import UserError
from elcrec.model.intents import ItemIntents
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.kmeans import best_kmeans, nearest
from elcrec.ops.lookup import look_up
from elcrec.ops.spectral import spectral_vectors
from elcrec.training.data import MOST_USERS, TrainingData
from elcrec.training.spread import Spread

_MOST_DIMENSIONS = 128
"""Eigenvectors at most: more take time and memory, and change little."""


class SharedCenters(nn.Module):
    """Adds to each item's own vector what others share with it: the learned centres of its intents, one of each set.

    With a spread, a part of the own vectors of similar items comes to that.
    """

    def __init__(
        self, intents: Sequence[Tensor], sizes: Sequence[int], hidden_size: int, scale: float, spread: Spread | None
    ) -> None:
        """Start with centres of zero, so that the table starts as it would without them.

        Args:
            intents: the intent of each item in each set, -1 for none, int64, [V + 1] each.
            sizes: number of intents of each set.
            hidden_size: D.
            scale: scale of the centres in the sums.
            spread: what else is added of the own vectors of similar items; `None` for nothing.
        """
        super().__init__()
        # Row 0 stays zero, for items without an intent.
        self.centers = nn.ParameterList(torch.zeros(size + 1, hidden_size) for size in sizes)
        for index, intents_V in enumerate(intents):
            self.register_buffer(f"row_{index}", intents_V + 1)
        self.only_R: Tensor | None = None
        self._scale, self.spread = scale, spread

    def forward(self, own_VD: Tensor) -> Tensor:
        """Return the items' vectors, [V + 1, D]; only those of `only_R`, [R, D], if that is set."""
        assert self.spread is None or self.only_R is None, "lazy updates know the own vectors of a few items alone"
        table_VD = own_VD.clone() if self.spread is None else self.spread(own_VD)
        for index, centers_KD in enumerate(self.centers):
            rows = self.get_buffer(f"row_{index}")
            rows = rows if self.only_R is None else rows[self.only_R]
            # In place: a new table for each sum would take three times as long.
            table_VD.add_(look_up(centers_KD, rows, PADDING), alpha=self._scale)
        return table_VD


def share_centers(
    model: SequenceModel, data: TrainingData, config: IntentConfig, seed: int, earlier_V: Tensor | None = None
) -> None:
    """Find the items' intents by k-means in the item graph's spectrum, and make their centres parts of the item table.

    With the items' intents in an earlier model, -1 for an unknown item, [V + 1], the items keep them, and only unknown
    items are assigned.

    Raises:
        UserError: there are fewer items in training than intents.
    """
    assert isinstance(model.intents, ItemIntents)
    sizes, width = (config.num_intents, *config.narrower), model.config.encoder.hidden_size
    generator = torch.Generator().manual_seed(seed)
    histories = data.sample(MOST_USERS, generator)
    known = torch.from_numpy(np.unique(histories.values).astype(np.int64))
    if len(known) < max(sizes):
        what = f"{len(known)} items in training for {max(sizes)} intents of items"
        more = " and the numbers in train.intents.narrower" if config.narrower else ""
        raise UserError(what, fix=f"lower train.intents.num_intents{more}")
    most = min(max(sizes), _MOST_DIMENSIONS)
    vectors_VD = spectral_vectors(histories.values - 1, histories.owners, model.num_items, most, config.reach)
    leading_NE, intents = torch.from_numpy(vectors_VD)[known - 1].float(), []
    for number, size in enumerate(sizes):
        # As many eigenvectors as clusters: further ones hold finer differences, which are noise to these.
        points_NE = F.normalize(leading_NE[:, :size], dim=1)
        intents_V = torch.full((model.num_items + 1,), -1)
        if number == 0 and earlier_V is not None:
            intents_V[known] = _completed(earlier_V[known], points_NE, size, generator)
        else:
            intents_V[known] = nearest(points_NE, best_kmeans(points_NE, size, generator))
        intents.append(intents_V)
    spread = Spread.over(histories, model.num_items, config.spread, config.similar) if config.spread else None
    shared = SharedCenters(intents, sizes, width, config.center_scale, spread)
    parametrize.register_parametrization(model.encoder.item_embedding, "weight", shared)


def _completed(intents_N: Tensor, points_NE: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the intents with each -1 replaced by the intent whose mean point is nearest.

    Intents that have lost all their items begin anew among the items without an intent, by k-means.
    """
    members, others = (intents_N >= 0).nonzero().flatten(), (intents_N < 0).nonzero().flatten()
    sums_KE = points_NE.new_zeros(size, points_NE.shape[1]).index_add_(0, intents_N[members], points_NE[members])
    counts_K = torch.bincount(intents_N[members], minlength=size)
    centers_KE, in_use_K = sums_KE / counts_K.clamp(min=1)[:, None], counts_K > 0
    empty = (~in_use_K).nonzero().flatten()
    if 0 < len(empty) <= len(others):
        centers_KE[empty] = best_kmeans(points_NE[others], len(empty), generator)
        in_use_K[empty] = True
    used = in_use_K.nonzero().flatten()
    return torch.where(intents_N >= 0, intents_N, used[nearest(points_NE, centers_KE[used])])


@torch.no_grad()
def give_vectors(model: SequenceModel, rows_R: Tensor, vectors_RD: Tensor) -> None:
    """Give some items these vectors: where the table is a sum, what is learned of each item alone makes up the rest.

    To be called before the first step, while all centres are zero.
    """
    own_VD, sums = model.own_vectors, _sums(model)
    if sums is None or sums.shared.spread is None:
        own_VD.index_copy_(0, rows_R, vectors_RD)
    else:
        own_VD.copy_(sums.shared.spread.with_sums(own_VD, rows_R, vectors_RD))


@contextmanager
def only_items(model: SequenceModel, rows_R: Tensor) -> Iterator[nn.Parameter]:
    """Replace the item table by one of only these items; yield what is learned of each of them alone, [R, D]."""
    own, sums = model.own_vectors, _sums(model)
    holder, name = (model.encoder.item_embedding, "weight") if sums is None else (sums.parametrized, "original")
    read = nn.Parameter(own.detach().index_select(0, rows_R))
    setattr(holder, name, read)
    if sums is not None:
        sums.shared.only_R = rows_R
    try:
        yield read
    finally:
        setattr(holder, name, own)
        if sums is not None:
            sums.shared.only_R = None


def place_intents(model: SequenceModel) -> None:
    """Place intents of items, if the model has them, among the items' present vectors."""
    sums = _sums(model)
    if sums is not None:
        assert isinstance(model.intents, ItemIntents)
        model.intents.place(model.item_embeddings(), sums.shared.get_buffer("row_0") - 1)


def settle(model: SequenceModel) -> None:
    """Turn a table of sums into an ordinary one; an ordinary one stays as it is."""
    if _sums(model) is not None:
        parametrize.remove_parametrizations(model.encoder.item_embedding, "weight", leave_parametrized=True)


class _Sums(NamedTuple):
    """The two parts of a table of sums: PyTorch's holder of the own vectors, and the shared centres."""

    parametrized: parametrize.ParametrizationList
    shared: SharedCenters


def _sums(model: SequenceModel) -> _Sums | None:
    embedding = model.encoder.item_embedding
    if not parametrize.is_parametrized(embedding):
        return None
    (parametrized,) = cast("nn.ModuleDict", embedding.parametrizations).values()
    assert isinstance(parametrized, parametrize.ParametrizationList)
    (shared,) = parametrized
    assert isinstance(shared, SharedCenters)
    return _Sums(parametrized, shared)
