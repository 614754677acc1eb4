"""The model: a sequence encoder, intent centres, and the training objective over both.

Axes: `B` rows, `N` flat positions, `D` hidden size, `K` intents, `V` items.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from elcrec.config import TrainConfig
from elcrec.data.ragged import IntArray, Ragged
from elcrec.model.encoder import Encoder, Layout
from elcrec.model.grouping import GroupedBatch, Rows, group_rows, group_steps
from elcrec.model.intents import ClusteredIntents, Intents, LearnedIntents, spherical
from elcrec.model.losses import cluster_loss, info_nce, intent_loss, next_item_loss, sum_rows, view_similarities
from elcrec.model.packing import pack
from elcrec.model.softmax import sampled_softmax_loss, softmax_loss
from elcrec.model.transfer import to_device

_ROWS_AT_ONCE = {"cpu": 256, "gpu": 8192}
"""Rows encoded at a time: on a CPU what the caches hold, on a GPU enough to keep it busy."""


class Exchange(Protocol):
    """Brings the states of several processes together, where there are several."""

    @property
    def rows(self) -> Rows:
        """All processes' rows: inputs, first views, second views."""

    def gather(self, states_MD: Tensor) -> Tensor:
        """Return the states of the items of `rows`, given those of this process."""


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """Items that next items are told apart from.

    Attributes:
        items: for the loss `bce` one for each position, [M]; for `sampled_softmax` some that all positions share, [S].
        log_counts: log of how often each shared one is expected among S draws, [S]; `None` for `bce`.
    """

    items: Tensor
    log_counts: Tensor | None


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """One step's input.

    Attributes:
        rows: everything that the encoder reads, in one pass: the sequences, without their last items; then, for the
            contrastive losses, the first views of all, the second views of all; then, where pooling is over the
            window, one window of nothing but padding.
        num_sequences: B, over all processes: users, or prefixes of users.
        positives_M: the item that came next at each item of the sequences, or at the last of each prefix.
        weights_M: weight of each of them in L_next; `None` where all weigh alike.
        negatives: drawn items; `None` where the loss sees the whole catalogue.
        share: weight of this process's L_next, so that the mean over processes is the mean over all positions.
        views: the views of all processes, laid out on their own to be compared; `None` without contrastive losses.
        exchange: `None` on a process alone.
    """

    rows: Layout
    num_sequences: int
    positives_M: Tensor
    weights_M: Tensor | None
    negatives: Negatives | None
    share: float
    views: Layout | None
    exchange: Exchange | None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the model says of histories.

    Attributes:
        vectors: state at the last item, zeros for an empty history, [B, D].
        intents: centre nearest to the mean state of its items; -1 for an empty history or a model without intents, [B].
    """

    vectors: Tensor
    intents: Tensor


class SequenceModel(nn.Module):
    """SASRec encoder with, for the objectives `elcrec` and `iclrec`, intent centres."""

    def __init__(self, config: TrainConfig, num_items: int) -> None:
        """Create the layers for a catalogue of `num_items`; item 0 is padding."""
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.encoder = Encoder(config.encoder, num_items)
        if fills_windows(config):
            self.encoder.draw_padding()
        kind = {"elcrec": LearnedIntents, "iclrec": ClusteredIntents}.get(config.objective)
        self.intents = kind(config.intents.num_intents, config.encoder.hidden_size) if kind else None

    @property
    def num_intents(self) -> int:
        """Number of intent centres (K); 0 for a model without intents."""
        return 0 if self.intents is None else len(self.intents.centers_KD)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.position_embedding.weight.device

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the weighted terms of the objective by name; their sum is what training minimises."""
        if self.config.next_item.loss == "bce":
            next_item, states_MD = self._binary(batch)
        else:
            predicting_MD, states_MD = self._training_states(batch)
            next_item = self._softmax(predicting_MD, batch)
        losses = {"next_item": batch.share * next_item}
        return losses if self.intents is None else losses | self._intent_losses(self.intents, states_MD, batch)

    def _training_states(self, batch: TrainingBatch, embedded_ND: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states that predict the batch's positives, and all states that other losses need."""
        with self._products():
            if self.config.next_item.prefixes and self.intents is None:
                last_BD: Tensor = self.encoder.last(batch.rows, embedded_ND)
                return last_BD, last_BD
            states_MD = self._states(batch.rows, embedded_ND)
        if not self.config.next_item.prefixes:
            return states_MD[: len(batch.positives_M)], states_MD
        ends_B = batch.rows.lengths_B[: len(batch.positives_M)].cumsum(0) - 1
        return states_MD.index_select(0, ends_B), states_MD

    def _products(self) -> AbstractContextManager[object]:
        """Run matrix products in the configured type; LayerNorm gives float32 back."""
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _states(self, rows: Layout, embedded_ND: Tensor | None = None) -> Tensor:
        """Encode rows: a state for every item, row after row."""
        return rows.of_items(self.encoder(rows, embedded_ND))

    def _binary(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """L_next by binary cross entropy, and the states.

        Inputs, positives and negatives are looked up at once, so that a dense gradient is made once.
        """
        assert batch.negatives is not None
        wanted = (batch.rows.items_N, batch.positives_M, batch.negatives.items)
        vectors = self.encoder.look_up_items(torch.cat(wanted))
        embedded_ND, positives_MD, negatives_MD = torch.split(vectors, [len(items) for items in wanted])
        predicting_MD, states_MD = self._training_states(batch, embedded_ND)
        loss = next_item_loss(predicting_MD, positives_MD, negatives_MD, batch.weights_M)
        return loss, states_MD

    def _softmax(self, states_MD: Tensor, batch: TrainingBatch) -> Tensor:
        """L_next by cross entropy among all items, or among some that all positions share."""
        table_VD, negatives = self.encoder.item_embedding.weight, batch.negatives
        targets_M, weights_M = batch.positives_M, batch.weights_M
        products = torch.bfloat16 if self.config.precision == "bfloat16" else None
        if negatives is None or negatives.log_counts is None:
            return softmax_loss(states_MD, table_VD, targets_M, weights_N=weights_M, products=products)
        drawn_S, log_counts_S = negatives.items, negatives.log_counts
        return sampled_softmax_loss(
            states_MD, table_VD, targets_M, drawn_S, log_counts_S, weights_N=weights_M, products=products
        )

    def _intent_losses(self, intents: Intents, states_MD: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        weights, padding_TD, losses = self.config.intents, None, {}
        rows: Rows = batch.rows
        if pools_padding(self.config):
            window = self.config.encoder.window
            states_MD, padding_TD = torch.split(states_MD, [len(states_MD) - window, window])
        if batch.exchange is not None:
            rows, states_MD = batch.exchange.rows, batch.exchange.gather(states_MD)
        count, sums_RD = batch.num_sequences, sum_rows(states_MD, rows)
        own_BD, views_RD = torch.split(sums_RD, [count, len(sums_RD) - count])
        lengths_B = rows.lengths_B[:count]
        if batch.views is not None and weights.sequence_weight:
            views_MD = states_MD[-len(batch.views.row_M) :]
            sequence = self._sequence_loss(intents, views_MD, batch.views, padding_TD)
            losses["sequence"] = weights.sequence_weight * sequence
        if batch.views is not None and weights.intent_weight:
            nearest_B = intents.nearest(mean_states(own_BD, lengths_B))
            pooled_2BD = mean_states(views_RD[: 2 * count], batch.views.lengths_B).view(2, *own_BD.shape)
            losses["intent"] = weights.intent_weight * self._intent_loss(intents, pooled_2BD, nearest_B)
        if isinstance(intents, LearnedIntents) and weights.cluster_weight:
            behaviours_BD = spherical(mean_states(own_BD, lengths_B, padding_TD))
            losses["cluster"] = weights.cluster_weight * cluster_loss(behaviours_BD, intents.centers_KD)
        return losses

    def _intent_loss(self, intents: Intents, pooled_2BD: Tensor, nearest_B: Tensor) -> Tensor:
        """L_intent: each view must find the centre of its sequence's intent, `nearest_B`."""
        weights = self.config.intents
        told_apart = nearest_B if weights.mask_same_intent else None
        return intent_loss(pooled_2BD, intents.lookup(nearest_B), weights.intent_temperature, told_apart)

    def _sequence_loss(self, intents: Intents, states_MD: Tensor, views: Layout, padding_TD: Tensor | None) -> Tensor:
        """L_seq: each view must find the other view of its sequence among all views of the batch."""
        fused_MD = self._fuse(intents, states_MD)
        if self.config.intents.comparison == "mean":
            mean_BD = pool(fused_MD, views)
            similarities_BB = mean_BD @ mean_BD.T
        else:
            empty_TD = None if padding_TD is None else self._fuse(intents, padding_TD)
            similarities_BB = view_similarities(fused_MD, views, empty_TD, self.config.encoder.window)
        return info_nce(similarities_BB, self.config.intents.sequence_temperature)

    def _fuse(self, intents: Intents, states_ND: Tensor) -> Tensor:
        """Join every state with its nearest centre."""
        fusion = self.config.intents.fusion
        if fusion == "none" or not isinstance(intents, LearnedIntents):
            return states_ND
        nearest_ND = intents.lookup(intents.nearest(states_ND))
        return states_ND + nearest_ND if fusion == "shift" else torch.cat((states_ND, nearest_ND), dim=1)

    @torch.inference_mode()
    def encode(self, histories: Ragged, *, intents: bool = True) -> Encoded:
        """Encode histories of item indices, oldest first; the encoder sees the last `window` of each.

        Args:
            histories: B rows of indices from 1 to `num_items`; a row may be empty.
            intents: whether intents are wanted; without them the encoder has less to do.
        """
        self.eval()
        recent = histories.tail(self.config.encoder.window)
        vectors = torch.zeros(len(histories), self.config.encoder.hidden_size, device=self.device)
        nearest = torch.full((len(histories),), -1, dtype=torch.int64, device=self.device)
        # Neighbours in length share a batch, which keeps padding out.
        rows = np.argsort(recent.lengths, kind="stable")
        rows = rows[recent.lengths[rows] > 0]
        for block, batch in self._blocks(recent, rows):
            encoded = self.encode_batch(batch, intents=intents)
            places = to_device(torch.from_numpy(block), self.device)
            vectors[places], nearest[places] = encoded.vectors, encoded.intents
        return Encoded(vectors=vectors, intents=nearest)

    def encode_batch(self, batch: Layout, *, intents: bool = True) -> Encoded:
        """Encode rows that are laid out for the encoder.

        Args:
            batch: rows no longer than the window.
            intents: as for `encode`.
        """
        if self.intents is None or not intents:
            nowhere = torch.full((len(batch.lengths_B),), -1, dtype=torch.int64, device=self.device)
            return Encoded(vectors=self.encoder.last(batch), intents=nowhere)
        states_MD = self._states(batch)
        nearest = self.intents.nearest(pool(states_MD, batch))
        return Encoded(vectors=states_MD[batch.lengths_B.cumsum(0) - 1], intents=nearest)

    def encode_alone(self, items_L: Tensor, half_norms_K: Tensor | None) -> Encoded:
        """Encode one row: `encode_batch` without what only several rows need.

        Args:
            items_L: item indices, oldest first, from one to `window` of them.
            half_norms_K: of the centres under these weights, see `Intents.half_norms`; `None` without intents.
        """
        states_LD = self.encoder.alone(items_L)
        if self.intents is None or half_norms_K is None:
            return Encoded(vectors=states_LD[-1:], intents=items_L.new_tensor([-1]))
        nearness_K = torch.addmv(half_norms_K, self.intents.centers_KD, states_LD.mean(0), beta=-1)
        return Encoded(vectors=states_LD[-1:], intents=nearness_K.argmax(keepdim=True))

    @torch.inference_mode()
    def pooled(self, histories: Ragged) -> Tensor:
        """Mean state by which training tells each history's intent, [B, D]; none is empty. For k-means."""
        self.eval()
        recent = histories.tail(self.config.encoder.window)
        blocks = self._blocks(recent, np.arange(len(recent)), filled=fills_windows(self.config))
        return torch.cat([pool(self._states(batch), batch) for _, batch in blocks])

    def _blocks(self, recent: Ragged, rows: IntArray, *, filled: bool = False) -> Iterator[tuple[IntArray, Layout]]:
        """Yield some of the named rows at a time, laid out for the encoder."""
        device, window = self.device, self.config.encoder.window
        size = _ROWS_AT_ONCE["cpu" if device.type == "cpu" else "gpu"]
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            taken = recent.take(block)
            if filled:
                yield block, filled_batch_of(taken.filled(window), device)
            else:
                yield block, batch_of(taken) if device.type == "cpu" else pack(taken, window, device)

    def item_vectors(self) -> Tensor:
        """Item embeddings, [V + 1, D]; row 0 is padding."""
        return self.encoder.item_embedding.weight.detach()


def fills_windows(config: TrainConfig) -> bool:
    """Whether training encodes the padding of every row."""
    return config.has_intents and config.intents.pooling == "filled"


def pools_padding(config: TrainConfig) -> bool:
    """Whether a loss counts the padding of a sequence's window, of which one is encoded for all."""
    weights = config.intents
    by_positions = weights.comparison == "positions" and bool(weights.sequence_weight)
    clusters = config.objective == "elcrec" and bool(weights.cluster_weight)
    return config.has_intents and weights.pooling == "window" and (by_positions or clusters)


def batch_of(rows: Ragged) -> GroupedBatch:
    """Lay out rows of item indices, none of them empty, for the encoder on a CPU."""
    items = torch.from_numpy(rows.values.astype(np.int64))
    return group_rows(items, torch.from_numpy(rows.lengths))


def filled_batch_of(rows: Ragged, device: torch.device) -> GroupedBatch:
    """Lay out rows of one length, whose padding is to be encoded too."""
    items = torch.from_numpy(rows.values.astype(np.int64))
    (batch,) = group_steps(items, torch.from_numpy(rows.lengths), [len(rows)], device, sees_all=True)
    return batch


def pool(states_MD: Tensor, rows: Rows) -> Tensor:
    """Mean state of each row's own positions, [B, D].

    Args:
        states_MD: a state for every item of the rows.
        rows: says which row an item belongs to.
    """
    return mean_states(sum_rows(states_MD, rows), rows.lengths_B)


def mean_states(sums_BD: Tensor, lengths_B: Tensor, padding_TD: Tensor | None = None) -> Tensor:
    """Mean state of each row, [B, D].

    Args:
        sums_BD: sum of the states of each row's own positions.
        lengths_B: how many those are.
        padding_TD: states of an empty window; where given, the mean is over all T positions of the window and these
            stand before the row's own, else it is over the row's own positions.
    """
    if padding_TD is None:
        return sums_BD / lengths_B[:, None]
    window = len(padding_TD)
    stands_before_BT = torch.arange(window, device=lengths_B.device) < window - lengths_B[:, None]
    return torch.addmm(sums_BD, stands_before_BT.to(sums_BD.dtype), padding_TD) / window
