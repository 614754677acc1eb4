"""Warm start: training that starts from another model's weights, such as the champion's."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.errors import UserError
from elcrec.model.intents import ItemIntents
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.items import item_intents


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A trained model with its digest, and the items that its catalogue shares with the one to train."""

    model: SequenceModel
    items: npt.NDArray[np.int32]
    """Index in its catalogue of each item to train, 0 if it does not know the item, [V]."""
    digest: str

    def item_intents(self, num_intents: int) -> Tensor | None:
        """Return the intent of each item in the other model, -1 for an item that it does not know, [V + 1].

        `None` if it has no intents of items, or another number of them.
        """
        intents = item_intents(self.model) if isinstance(self.model.intents, ItemIntents) else None
        if intents is None or self.model.num_intents != num_intents:
            return None
        # Index 0, of padding and of unknown items, has the intent -1.
        return torch.from_numpy(intents[np.concatenate(([0], self.items))])

    @torch.no_grad()
    def lay_over(self, model: SequenceModel) -> bool:
        """Copy the encoder, the vectors of common items, and the centres if their number is the same.

        Returns whether the centres were copied. Raises a `UserError` if the encoders have different sizes.
        """
        ours, theirs = model.config.encoder, self.model.config.encoder
        if (ours.window, ours.hidden_size, ours.num_blocks) != (theirs.window, theirs.hidden_size, theirs.num_blocks):
            what = f"its encoder has {_sizes(self.model)}, but train.encoder has {_sizes(model)}"
            raise UserError(what, where="warm start", fix="train with the same sizes, or without a warm start")
        vectors = model.own_vectors
        known = np.flatnonzero(self.items)
        source = self.model.encoder.item_embedding.weight[self.items[known].astype(np.int64)]
        vectors[torch.from_numpy(known + 1).to(vectors.device)] = source.to(vectors.device)
        weights = {n: t for n, t in self.model.encoder.state_dict().items() if not n.startswith("item_embedding.")}
        model.encoder.load_state_dict(weights, strict=False)
        if model.config.head == self.model.config.head:
            model.head.load_state_dict(self.model.head.state_dict())
        if model.intents is None or self.model.intents is None or model.num_intents != self.model.num_intents:
            return False
        model.intents.load_state_dict(self.model.intents.state_dict(), strict=False)
        return True


def _sizes(model: SequenceModel) -> str:
    encoder = model.config.encoder
    return f"window {encoder.window}, hidden_size {encoder.hidden_size}, num_blocks {encoder.num_blocks}"
