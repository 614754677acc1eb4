"""The model: a sequence encoder, intent centres, and the training objective over both.

Axes: `B` rows, `N` flat positions, `D` hidden size, `K` intents, `V` items.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import TrainConfig
from elcrec.data.ragged import IntArray, Ragged
from elcrec.model.encoder import Encoder
from elcrec.model.grouping import GroupedBatch, Layout, group_rows
from elcrec.model.intents import IntentCenters, spherical
from elcrec.model.losses import cluster_loss, info_nce, intent_loss, next_item_loss, view_similarities


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """One step's input.

    Attributes:
        sequences: the users' training items but the last, B rows.
        positives_N: the item that came next at each position of `sequences`; 0 at padding.
        negatives_N: a drawn item for each position.
        views: two views a sequence, 2 B rows: the first views of all, then the second views; `None` without
            contrastive losses.
    """

    sequences: GroupedBatch
    positives_N: Tensor
    negatives_N: Tensor
    views: GroupedBatch | None

    def to(self, device: torch.device) -> "TrainingBatch":
        """Move the tensors."""
        return TrainingBatch(
            sequences=self.sequences.to(device),
            positives_N=self.positives_N.to(device),
            negatives_N=self.negatives_N.to(device),
            views=None if self.views is None else self.views.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the model says of histories.

    Attributes:
        vectors: state at the last item, zeros for an empty history, [B, D].
        intents: nearest intent centre of the pooled states; -1 for an empty history or a model without intents, [B].
    """

    vectors: Tensor
    intents: Tensor


class SequenceModel(nn.Module):
    """SASRec encoder with, for the objective `elcrec`, learnable intent centres."""

    def __init__(self, config: TrainConfig, num_items: int) -> None:
        """Create the layers for a catalogue of `num_items`; item 0 is padding."""
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.encoder = Encoder(config.encoder, num_items)
        self.intents = (
            IntentCenters(config.intents.num_intents, config.encoder.hidden_size)
            if config.objective == "elcrec"
            else None
        )

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
        states_ND = self.encoder(batch.sequences)
        embed = self.encoder.item_embedding
        weights_N = batch.sequences.real_N.to(states_ND.dtype)
        next_item = next_item_loss(states_ND, embed(batch.positives_N), embed(batch.negatives_N), weights_N)
        if self.intents is None or batch.views is None:
            return {"next_item": next_item}
        padding_TD = self._padding_states()
        pooled_BD = spherical(pool(states_ND, batch.sequences, padding_TD))
        return {"next_item": next_item, **self._intent_losses(self.intents, pooled_BD, batch.views, padding_TD)}

    def _padding_states(self) -> Tensor | None:
        """States of a window of nothing but padding, [T, D]: what pooling over the window adds to a short sequence.

        Padding is the same for every sequence, so it is encoded once a step instead of once a row.
        """
        if self.intents is None or self.config.intents.pooling == "items":
            return None
        window = self.config.encoder.window
        nothing = torch.zeros(window, dtype=torch.int64)
        states_TD: Tensor = self.encoder(group_rows(nothing, torch.tensor([window])).to(self.device))
        return states_TD

    def _intent_losses(
        self, intents: IntentCenters, pooled_BD: Tensor, views: GroupedBatch, padding_TD: Tensor | None
    ) -> dict[str, Tensor]:
        weights, size = self.config.intents, len(pooled_BD)
        states_ND = self.encoder(views)
        first_BD, second_BD = torch.split(pool(states_ND, views, padding_TD), size)
        centers_BD = intents.lookup(intents.nearest(pooled_BD))
        contrast = [intent_loss(view_BD, centers_BD, weights.temperature) for view_BD in (first_BD, second_BD)]
        return {
            "sequence": weights.sequence_weight * self._sequence_loss(intents, states_ND, views, padding_TD),
            "intent": weights.intent_weight * torch.stack(contrast).mean(),
            "cluster": weights.cluster_weight * cluster_loss(pooled_BD, intents.centers_KD),
        }

    def _sequence_loss(
        self, intents: IntentCenters, states_ND: Tensor, views: GroupedBatch, padding_TD: Tensor | None
    ) -> Tensor:
        """L_seq: each view must find the other view of its sequence among all views of the batch."""
        fused_ND, temperature = self._fuse(intents, states_ND), self.config.intents.temperature
        if self.config.intents.comparison == "mean":
            mean_BD = pool(fused_ND, views)
            partner_B = torch.arange(len(mean_BD), device=mean_BD.device).roll(len(mean_BD) // 2)
            return info_nce(mean_BD @ mean_BD.T, partner_B, temperature)
        empty_TD = None if padding_TD is None else self._fuse(intents, padding_TD)
        similarities_BB = view_similarities(fused_ND, views, empty_TD, self.config.encoder.window)
        return info_nce(similarities_BB, _partners(views.layout), temperature)

    def _fuse(self, intents: IntentCenters, states_ND: Tensor) -> Tensor:
        """Join every state with its nearest centre."""
        fusion = self.config.intents.fusion
        if fusion == "none":
            return states_ND
        nearest_ND = intents.lookup(intents.nearest(states_ND))
        return states_ND + nearest_ND if fusion == "shift" else torch.cat((states_ND, nearest_ND), dim=1)

    @torch.inference_mode()
    def encode(self, histories: Ragged, batch_size: int = 1024) -> Encoded:
        """Encode histories of item indices, oldest first; the encoder sees the last `window` of each.

        Args:
            histories: B rows of indices from 1 to `num_items`; a row may be empty.
            batch_size: rows encoded at a time; bounds memory.
        """
        self.eval()
        recent = histories.tail(self.config.encoder.window)
        vectors = torch.zeros(len(histories), self.config.encoder.hidden_size, device=self.device)
        intents = torch.full((len(histories),), -1, dtype=torch.int64, device=self.device)
        # Neighbours in length share a batch, which keeps padding out.
        rows = np.argsort(recent.lengths, kind="stable")
        rows = rows[recent.lengths[rows] > 0]
        padding_TD = self._padding_states()
        for block, batch in self._blocks(recent, rows, batch_size):
            states_ND = self.encoder(batch)
            vectors[block] = states_ND[last_positions(batch)]
            if self.intents is not None:
                intents[block] = self.intents.nearest(pool(states_ND, batch, padding_TD))
        return Encoded(vectors=vectors, intents=intents)

    @torch.inference_mode()
    def pooled(self, histories: Ragged, batch_size: int = 1024) -> Tensor:
        """Pooled state of each history, all non-empty, [B, D]; where k-means places the first centres."""
        self.eval()
        recent = histories.tail(self.config.encoder.window)
        padding_TD = self._padding_states()
        blocks = self._blocks(recent, np.arange(len(recent)), batch_size)
        return torch.cat([pool(self.encoder(batch), batch, padding_TD) for _, batch in blocks])

    def _blocks(self, recent: Ragged, rows: IntArray, batch_size: int) -> Iterator[tuple[IntArray, GroupedBatch]]:
        """Yield some of the named rows at a time, laid out for the encoder."""
        for start in range(0, len(rows), batch_size):
            block = rows[start : start + batch_size]
            yield block, batch_of(recent.take(block), self.device)

    def item_vectors(self) -> Tensor:
        """Item embeddings, [V + 1, D]; row 0 is padding."""
        return self.encoder.item_embedding.weight.detach()


def batch_of(rows: Ragged, device: torch.device) -> GroupedBatch:
    """Lay out rows of item indices, none of them empty, for the encoder."""
    items = torch.from_numpy(rows.values.astype(np.int64))
    return group_rows(items, torch.from_numpy(rows.lengths)).to(device)


def pool(states_ND: Tensor, batch: GroupedBatch, padding_TD: Tensor | None = None) -> Tensor:
    """Mean state of each row, in the order of the batch, [B, D].

    Args:
        states_ND: encoder states of the batch.
        batch: says which positions are real.
        padding_TD: states of an empty window; where given, the mean is over all T positions of the window and these
            stand before the row's own, else it is over the row's own positions.
    """
    real_N = batch.real_N.to(states_ND.dtype)
    masked_ND = states_ND * real_N[:, None]
    groups = batch.layout.groups
    sums_BD = torch.cat([masked_ND[g.start : g.stop].view(g.rows, g.length, -1).sum(1) for g in groups])
    counts_B = torch.cat([real_N[g.start : g.stop].view(g.rows, g.length).sum(1) for g in groups])
    if padding_TD is None:
        return (sums_BD / counts_B[:, None])[batch.layout.slot_B]
    window = len(padding_TD)
    before_TD = F.pad(padding_TD.cumsum(0), (0, 0, 1, 0))
    return ((sums_BD + F.embedding(window - counts_B.long(), before_TD)) / window)[batch.layout.slot_B]


def last_positions(batch: GroupedBatch) -> Tensor:
    """Flat position of the last item of each row, [B]."""
    ends = [torch.arange(g.start + g.length - 1, g.stop, g.length) for g in batch.layout.groups]
    return torch.cat(ends).to(batch.layout.slot_B.device)[batch.layout.slot_B]


def _partners(layout: Layout) -> Tensor:
    """For each row in the layout's order, the place of the other view of the same sequence."""
    slot_B = layout.slot_B
    partner_B = torch.empty_like(slot_B)
    partner_B[slot_B] = slot_B.roll(len(slot_B) // 2)
    return partner_B
