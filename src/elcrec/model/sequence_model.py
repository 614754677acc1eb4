"""The model: a sequence encoder and, for some objectives, intent centres.

Axes: `B` rows, `N` flat positions, `D` hidden size, `K` intents, `L` items of a row alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elcrec.config import ModelConfig
from elcrec.data.ragged import IntArray, Ragged
from elcrec.model.encoder import Encoder
from elcrec.model.grouping import group_rows
from elcrec.model.heads import HEADS, Head
from elcrec.model.intents import KINDS, Intents, ItemIntents, SequenceIntents
from elcrec.model.layout import Layout
from elcrec.model.neighbours import Additions, Floats, Neighbours
from elcrec.model.packing import pack
from elcrec.ops.device import to_device
from elcrec.ops.lookup import look_up

_ROWS_AT_ONCE = {"cpu": 256, "gpu": 8192}
"""Rows encoded at a time: on a CPU as many as fit its caches, on a GPU enough to keep it busy."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The encoding of histories.

    Attributes:
        vectors: the vectors that score items, computed by the head from the state at the last item, with the part of
            the intents if the model has one; zeros for an empty history, [B, D].
        intents: centre nearest to the mean state of the items; -1 if there is none, [B].
    """

    vectors: Tensor
    intents: Tensor


class SequenceModel(nn.Module):
    """An encoder of histories with its item embeddings and, for some objectives, intent centres.

    A score is the product of a history's and an item's vector, and what `add_to` adds to it.
    """

    popularity_V: Tensor | None

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        """Create the layers for a catalogue of `num_items`; item 0 is padding."""
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.encoder = Encoder(config.encoder, num_items)
        self.head: Head = HEADS[config.head]()
        width = config.encoder.hidden_size
        self.intents: Intents | None = KINDS[config.intents](config.num_intents, width) if config.intents else None
        self.neighbours = Neighbours(num_items, config.neighbours) if config.neighbours else None
        self.followers = Neighbours(num_items, config.followers) if config.followers else None
        self.register_buffer("popularity_V", torch.zeros(num_items + 1) if config.popularity else None)

    def know(
        self,
        *,
        neighbours: Neighbours | None = None,
        followers: Neighbours | None = None,
        popularity_V: Tensor | None = None,
    ) -> None:
        """Take what is given of this, and keep the rest as it is.

        Args:
            neighbours: to whose scores each item of a history adds.
            followers: to whose scores the last item of a history adds.
            popularity_V: what is added to the score of each item, [V + 1].
        """
        replace = msgspec.structs.replace
        if neighbours is not None:
            self.config = replace(self.config, neighbours=neighbours.items_VK.shape[1])
            self.neighbours = neighbours.to(self.device)
        if followers is not None:
            self.config = replace(self.config, followers=followers.items_VK.shape[1])
            self.followers = followers.to(self.device)
        if popularity_V is not None:
            self.config = replace(self.config, popularity=True)
            self.popularity_V = popularity_V.to(self.device)

    @property
    def num_intents(self) -> int:
        """Number of intent centres (K); 0 for a model without intents."""
        return self.config.num_intents

    @property
    def scores_intents(self) -> bool:
        """Whether the intents of a history affect the scores."""
        return self.intents is not None and self.intents.shapes_vectors

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.own_vectors.device

    @property
    def own_vectors(self) -> Tensor:
        """What is learned of each item alone: the item table, or the items' part of it where it is a sum."""
        embedding = self.encoder.item_embedding
        if parametrize.is_parametrized(embedding):
            return cast("Tensor", cast("nn.ModuleDict", embedding.parametrizations)["weight"].original)
        return embedding.weight

    def item_embeddings(self) -> Tensor:
        """The embeddings with which histories are read, [V + 1, D]; row 0 is padding."""
        return self.encoder.item_embedding.weight.detach()

    def item_vectors(self) -> Tensor:
        """Return the item vectors to score, which the head computes from the embeddings, [V + 1, D]."""
        return self.head.items(self.item_embeddings())

    def additions(self, histories: Ragged) -> Additions | None:
        """Return what the items of the window add to the scores of neighbours and followers; `None` without these."""
        found = []
        if self.neighbours is not None:
            found.append(self.neighbours.additions(histories.tail(self.config.encoder.window)))
        if self.followers is not None:
            found.append(self.followers.additions(histories.tail(1)))
        return Additions.joined(found) if found else None

    def add_to(self, scores_BV: Tensor, histories: Ragged) -> None:
        """Add to scores what counts besides vectors, in place: neighbours, followers and popularity, as far as known.

        Args:
            scores_BV: products of the vectors of histories and of all items, on any device, [B, V + 1].
            histories: the same histories, B rows.
        """
        additions = self.additions(histories)
        if additions is not None:
            additions.onto(scores_BV)
        if self.popularity_V is not None:
            scores_BV += self.popularity_V.to(scores_BV.device)

    def add_alone(self, scores_V: Floats, items_L: IntArray) -> None:
        """Add to the scores of one row in the memory of the CPU, in place: `add_to` without its overhead.

        Args:
            scores_V: products of the vectors of a history and of all items, [V + 1].
            items_L: the history, of 1 to `window` items.
        """
        if self.neighbours is not None:
            self.neighbours.add_alone(scores_V, np.unique(items_L))
        if self.followers is not None:
            self.followers.add_alone(scores_V, items_L[-1:])
        if self.popularity_V is not None:
            scores_V += self.popularity_V.numpy()

    def adder(self, histories: Ragged) -> Callable[[Tensor, slice], None]:
        """Return `add_to` for a range of these histories, for rankings of a block of users at a time."""

        def add(scores_BV: Tensor, rows: slice) -> None:
            self.add_to(scores_BV, histories.part(rows))

        return add

    @torch.inference_mode()
    def encode(self, histories: Ragged, *, intents: bool = True) -> Encoded:
        """Encode histories of item indices, oldest first; the encoder sees the last `window` of each.

        Args:
            histories: B rows of indices from 1 to `num_items`; a row may be empty.
            intents: whether to return intents; without them the encoder has less work.
        """
        self.eval()
        recent = histories.tail(self.config.encoder.window)
        vectors = torch.zeros(len(histories), self.config.encoder.hidden_size, device=self.device)
        nearest = torch.full((len(histories),), -1, dtype=torch.int64, device=self.device)
        # Rows of similar length share a batch, which avoids padding.
        rows = np.argsort(recent.lengths, kind="stable")
        rows = rows[recent.lengths[rows] > 0]
        for block in self._parts(rows):
            encoded = self.encode_rows(self.lay_out(recent.take(block)), intents=intents)
            places = to_device(torch.from_numpy(block), self.device)
            vectors[places], nearest[places] = encoded.vectors, encoded.intents
        return Encoded(vectors=vectors, intents=nearest)

    def encode_rows(self, rows: Layout, *, intents: bool = True) -> Encoded:
        """Encode rows in a layout: `encode` for rows that are neither empty nor too long."""
        if self.intents is None or not (intents or self.scores_intents):
            nowhere = torch.full((len(rows.lengths_B),), -1, dtype=torch.int64, device=self.device)
            return Encoded(vectors=self.head.queries(self.encoder.last(rows)), intents=nowhere)
        if isinstance(self.intents, ItemIntents):
            embedded_ND = look_up(self.item_embeddings(), rows.items_N)
            shares_BK = rows.mean(rows.of_items(self.intents.shares(embedded_ND)))
            vectors_BD = self.head.queries(self.encoder.last(rows, embedded_ND))
            return Encoded(vectors=vectors_BD, intents=shares_BK.max(1).indices)
        states_ND = self.encoder(rows)
        means_BD = rows.mean(rows.of_items(states_ND))
        vectors_BD = self.intents.shaped(rows.of_ends(states_ND), means_BD)
        return Encoded(vectors=self.head.queries(vectors_BD), intents=self.intents.nearest(means_BD))

    @torch.inference_mode()
    def prepared(self) -> Tensor | None:
        """Return what `encode_alone` would compute of these weights for every request; `None` without intents."""
        return None if self.intents is None else self.intents.prepared(self.item_embeddings())

    def encode_alone(self, items_L: Tensor, prepared: Tensor | None) -> Encoded:
        """Encode one row of 1 to `window` items: `encode_rows` without the overhead of several rows.

        `prepared` is the result of the method of that name for these weights.
        """
        if isinstance(self.intents, SequenceIntents) and prepared is not None:
            states_LD = self.encoder.alone(items_L)
            mean_D = states_LD.mean(0)
            nearness_K = torch.addmv(prepared, self.intents.centers_KD, mean_D, beta=-1)
            vectors_1D = self.intents.shaped(states_LD[-1:], mean_D[None])
            return Encoded(vectors=self.head.queries(vectors_1D), intents=nearness_K.argmax(keepdim=True))
        if isinstance(self.intents, ItemIntents) and prepared is not None:
            intents_1 = prepared.index_select(0, items_L).sum(0).argmax(keepdim=True)
        else:
            intents_1 = items_L.new_tensor([-1])
        return Encoded(vectors=self.head.queries(self.encoder.last_alone(items_L)), intents=intents_1)

    @torch.inference_mode()
    def pooled(self, histories: Ragged, *, padded: bool = False) -> Tensor:
        """Return the mean state of each history, [B, D]; no history may be empty.

        With intents of items, it is the mean of the centres by the shares of the history's items. With `padded`, every
        row is padded to the window and padding counts, as in training with encoded padding.
        """
        self.eval()
        recent, means = histories.tail(self.config.encoder.window), []
        for block in self._parts(np.arange(len(recent))):
            rows = self.lay_out(recent.take(block), padded=padded)
            if isinstance(self.intents, ItemIntents):
                points_ND = self.intents.shares(self.item_embeddings()[rows.items_N]) @ self.intents.centers_KD
            else:
                points_ND = self.encoder(rows)
            means.append(rows.mean(rows.of_items(points_ND)))
        return torch.cat(means)

    def lay_out(self, rows: Ragged, *, padded: bool = False) -> Layout:
        """Lay out rows, none empty or longer than the window, for this model's device; `padded` as in `pooled`."""
        window = self.config.encoder.window
        if padded:
            return group_rows(rows.filled(window), self.device, sees_all=True)
        return group_rows(rows) if self.device.type == "cpu" else pack(rows, window, self.device)

    def _parts(self, rows: IntArray) -> Iterator[IntArray]:
        """Yield some rows at a time."""
        size = _ROWS_AT_ONCE["cpu" if self.device.type == "cpu" else "gpu"]
        return (rows[start : start + size] for start in range(0, len(rows), size))
