"""Warm start: training that starts from another model's weights, such as the champion's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.config import EncoderConfig, to_dict
from elcrec.errors import UserError
from elcrec.model.intents import ItemIntents
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.items import item_intents
from elcrec.training.item_intents import give_vectors


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
        """Copy the encoder, the vectors of common items, and the centres of as many intents of the same kind.

        Returns whether the centres were copied. Raises a `UserError` if the encoders differ in more than dropout.
        """
        ours, theirs = _architecture(model.config.encoder), _architecture(self.model.config.encoder)
        if different := [name for name in ours if ours[name] != theirs.get(name, ours[name])]:
            their_own, our_own = (", ".join(f"{name} {of[name]}" for name in different) for of in (theirs, ours))
            what = f"its encoder has {their_own}, but train.encoder has {our_own}"
            raise UserError(what, where="warm start", fix="train with the same encoder, or without a warm start")
        known = np.flatnonzero(self.items)
        source = self.model.encoder.item_embedding.weight[self.items[known].astype(np.int64)]
        give_vectors(model, torch.from_numpy(known + 1).to(model.device), source.to(model.device))
        weights = {n: t for n, t in self.model.encoder.state_dict().items() if not n.startswith("item_embedding.")}
        model.encoder.load_state_dict(weights, strict=False)
        if model.config.head == self.model.config.head:
            model.head.load_state_dict(self.model.head.state_dict())
        alike = (model.config.intents, model.num_intents) == (self.model.config.intents, self.model.num_intents)
        if model.intents is None or self.model.intents is None or not alike:
            return False
        model.intents.load_state_dict(self.model.intents.state_dict(), strict=False)
        return True


def _architecture(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the fields on which the meaning of an encoder's weights depends."""
    fields = to_dict(encoder)
    unused = {"hidden_dropout", "attention_dropout"}
    if encoder.branch is None:
        unused.add("branch_share")
    if not encoder.takes_differences:
        unused.add("distances")
    return {name: value for name, value in fields.items() if name not in unused}
