"""Assembly of steps as tensors on any device: sequences, targets, negatives, views and padding.

Several steps are assembled at once: `C` steps with the same number of sequences and the same room for positions. For a
layout that needs exact sizes, all steps are assembled as one. Nothing here makes the host wait for a value from the
device.

Axes: `S` sequences of an epoch, `C` steps, `B` sequences of a step, `R` rows and `N` positions of a part, `M` of all.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.config import TrainConfig
from elcrec.data.dataset import PADDING
from elcrec.model.packing import Slots, slots
from elcrec.ops.negatives import UnseenItems, draw_others
from elcrec.training.data import TrainingData
from elcrec.training.step import PartName
from elcrec.training.terms.term import Need
from elcrec.training.views import ViewPlan, apply_plan


class Room(NamedTuple):
    """The room of a step in positions: for inputs, for whole sequences before they become views, and for views."""

    inputs: int
    whole: int
    views: int


class Piece(NamedTuple):
    """The rows of one part of each step: the positions of each row, the layout, [C, N], and the items.

    An item is 0 for padding, if it is masked, and after the last row.
    """

    lengths_CR: Tensor
    slots: Slots
    items_CN: Tensor


class Assembled(NamedTuple):
    """The encoder's input by part; the target at each position of the inputs, or after each prefix; negatives.

    A target is 0 if there is none. Negatives are items that the target's user has not seen, one per target if the loss
    needs them; if repeats are allowed, any items except the target. Weights belong to the targets, 0 if there is no
    target; `None` if all are equal.
    """

    pieces: dict[PartName, Piece]
    targets: Tensor
    negatives: Tensor | None
    weights: Tensor | None = None


class Assembler:
    """Assembles steps of a training set on one device."""

    def __init__(
        self, data: TrainingData, config: TrainConfig, needs: frozenset[Need], device: torch.device, *, resident: bool
    ) -> None:
        """Copy the data to the device.

        If the data stays there (`resident`), the unseen items are computed once for all users, else for the users of
        the current steps.
        """
        self._data, self._config, self._needs, self._window = data, config, needs, config.encoder.window
        self._items = torch.from_numpy(data.items).to(device)
        self._weights = None if data.weights is None else torch.from_numpy(data.weights).to(device)
        self._starts_S, self._ends_S = (torch.from_numpy(part) for part in (data.starts_S, data.ends_S))
        self._unseen: UnseenItems | None = None
        if resident:
            # One extra, empty sequence stands in for a missing one.
            self._starts_S = F.pad(self._starts_S, (0, 1)).to(device)
            self._ends_S = F.pad(self._ends_S, (0, 1), value=1).to(device)
        if resident and config.next_item.loss == "bce" and not data.repeats:
            self._unseen = data.unseen_items(np.arange(data.num_users), device)
            self._owners_S = F.pad(torch.from_numpy(data.owners(data.ends_S)), (0, 1)).to(device)

    def lengths(self, chosen: Tensor) -> Tensor:
        """Return the number of items that the encoder could read of each sequence: all but the last."""
        return self._ends_S[chosen] - 1 - self._starts_S[chosen]

    def taken(self, lengths: Tensor) -> Tensor:
        """Return the positions that rows take: at most a window, or always a window if padding is encoded."""
        if self._config.padding == "encoded":
            return self._window * (lengths > 0)
        return lengths.clamp(max=self._window)

    def draw_views(self, lengths: Tensor, generator: torch.Generator | None) -> ViewPlan | None:
        """Draw two views of sequences with these numbers of items, [2, …], if a loss term compares them."""
        if "views" not in self._needs:
            return None
        return ViewPlan.draw(lengths.expand(2, *lengths.shape), self._config.views, generator)

    def room(self, lengths: Tensor, plan: ViewPlan | None) -> list[Tensor]:
        """Return the positions that each sequence takes: for inputs, for whole sequences, for views."""
        if plan is None:
            return [self.taken(lengths), torch.zeros_like(lengths), torch.zeros_like(lengths)]
        return [self.taken(lengths), 2 * lengths, self.taken(plan.spans(self._window)[1]).sum(0)]

    def assemble(
        self, chosen_CB: Tensor, plan: ViewPlan | None, room: Room, generator: torch.Generator | None
    ) -> Assembled:
        """Assemble steps of the chosen sequences, with the views drawn for them, [2, C B].

        There must be room for the largest step. Negatives, and what the views' plans leave open, are drawn with the
        generator; `None` is PyTorch's own.
        """
        starts_CB, ends_CB = self._starts_S[chosen_CB], self._ends_S[chosen_CB] - 1
        lengths_CB = (ends_CB - starts_CB).clamp(max=self._window)
        inputs = self._piece(self._items, ends_CB, lengths_CB, room.inputs)
        pieces: dict[PartName, Piece] = {"inputs": inputs}
        if plan is not None:
            pieces["views"] = self._views(plan, starts_CB, room, generator)
        if "padding" in self._needs:
            length_C1 = torch.full_like(chosen_CB[:, :1], self._window)
            where = slots(length_C1, self._window)
            pieces["padding"] = Piece(length_C1, where, torch.full_like(where.row, PADDING))

        def asked(values: Tensor) -> Tensor:
            if self._config.next_item.prefixes:
                return values[ends_CB] if values.is_floating_point() else values[ends_CB].long()
            return self._piece(values, ends_CB + 1, lengths_CB, room.inputs).items_CN

        targets, weights = asked(self._items), None if self._weights is None else asked(self._weights)
        row = None if self._config.next_item.prefixes else inputs.slots.row
        negatives = None
        if self._config.next_item.loss == "bce":
            negatives = self._negatives(chosen_CB, row, targets, generator)
        return Assembled(pieces, targets, negatives, weights)

    def _piece(self, items: Tensor, ends_CB: Tensor, lengths_CB: Tensor, room: int) -> Piece:
        """Read rows of the given lengths that end before `ends_CB`, after padding if padding is encoded."""
        taken_CB = self.taken(lengths_CB)
        where = slots(taken_CB, room)
        return Piece(taken_CB, where, _read(items, ends_CB - taken_CB, taken_CB - lengths_CB, where))

    def _views(self, drawn: ViewPlan, starts_CB: Tensor, room: Room, generator: torch.Generator | None) -> Piece:
        """Return the first views of all sequences of a step, then the second views."""
        by_step = ViewPlan(*(part.view(2, len(starts_CB), -1).transpose(0, 1).flatten(1) for part in drawn))
        where = slots(by_step.lengths_B, room.whole)
        items_CN = _read(self._items, starts_CB.repeat(1, 2), torch.zeros_like(by_step.lengths_B), where)
        # An extra last row takes the rest of the room, with a plan that leaves it unchanged.
        plan = ViewPlan(*(F.pad(part, (0, 1)) for part in by_step))
        plan.lengths_B[:, -1] = room.whole
        step_C1 = torch.arange(len(starts_CB), device=starts_CB.device)[:, None]
        rows_CN = where.row + step_C1 * plan.lengths_B.shape[1]
        flat = ViewPlan(*(part.flatten() for part in plan))
        viewed_M = apply_plan(flat, items_CN.flatten(), rows_CN.flatten(), where.place.flatten(), generator)
        first_CR, kept_CR = by_step.spans(self._window)
        first_CR += step_C1 * room.whole + by_step.lengths_B.cumsum(1) - by_step.lengths_B
        return self._piece(viewed_M, first_CR + kept_CR, kept_CR, room.views)

    def _negatives(
        self, chosen_CB: Tensor, row_CN: Tensor | None, targets: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draw an item for each target that its user has not seen in training, or any other if repeats are allowed."""
        if self._data.repeats:
            return draw_others(targets, self._data.num_items, generator)
        if self._unseen is None:
            users, owners = np.unique(self._data.owners(self._ends_S[chosen_CB].numpy()), return_inverse=True)
            unseen, owners_CB = self._data.unseen_items(users), torch.from_numpy(owners).view_as(chosen_CB)
        else:
            unseen, owners_CB = self._unseen, self._owners_S[chosen_CB]
        if row_CN is not None:
            owners_CB = F.pad(owners_CB, (0, 1)).gather(1, row_CN)
        return unseen.draw(owners_CB, generator)


def _read(items: Tensor, starts_CR: Tensor, skipped_CR: Tensor, where: Slots) -> Tensor:
    """Read the items, or weights, of rows from `starts_CR` on; 0 at skipped positions and after the last row."""
    source_CN = F.pad(starts_CR, (0, 1)).gather(1, where.row) + where.place
    source_CN = source_CN.clamp_(min=0, max=len(items) - 1)
    # Positions after the last row are always skipped: their place is below the number of positions.
    skipped_CN = F.pad(skipped_CR, (0, 1), value=where.row.shape[1]).gather(1, where.row)
    found_CN = items[source_CN]
    return torch.where(where.place >= skipped_CN, found_CN if items.is_floating_point() else found_CN.long(), PADDING)
