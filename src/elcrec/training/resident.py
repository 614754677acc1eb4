"""Training data on a GPU: steps are assembled where they are computed, from one flat array of items.

Nothing in a step depends on a value that the host would have to ask for, and all full steps have the same shapes. So a
step can be recorded once, assembly and all, and replayed: see `recording`. The host waits once an epoch, before its
first step, to learn how many positions the largest step needs.

Axes: `S` sequences of an epoch, `B` sequences of a step, `N` flat positions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.config import TrainConfig
from elcrec.data.dataset import PADDING
from elcrec.model.elcrec import Negatives, TrainingBatch, pools_padding
from elcrec.model.packing import PackedBatch, Slots, chunk_of, slots
from elcrec.model.views import ViewPlan, apply_plan
from elcrec.training.batches import TrainingData, contrastive

_SLACK = 1 / 16
"""Room beyond an epoch's largest step, so that the steps of the next epochs most likely fit as well."""


class Sizes(NamedTuple):
    """Positions that a step has room for: inputs, whole sequences before they become views, and views."""

    inputs: int
    whole: int
    views: int

    def fits(self, needed: "Sizes") -> bool:
        """Whether a step of that size has room."""
        return all(own >= other for own, other in zip(self, needed, strict=True))


class _Piece(NamedTuple):
    """Rows of one kind: how long each is, what lies where, and the items."""

    lengths_B: Tensor
    slots: Slots
    items_N: Tensor


class ResidentData:
    """The training part of all sequences in a device's own memory, cut into steps."""

    def __init__(self, source: TrainingData, config: TrainConfig, device: torch.device) -> None:
        """Copy what training reads to the device."""
        self._config, self._window = config, config.encoder.window
        spans = source.spans()
        self._items = torch.from_numpy(spans.items).to(device)
        self._starts_S, self._ends_S = (torch.from_numpy(part).to(device) for part in (spans.starts, spans.ends))
        self._owners_S = torch.from_numpy(spans.owners).to(device)
        self._count = source.num_sequences
        self._steps = len(source)
        self._unseen = source.unseen_items(device=device) if config.next_item.loss == "bce" else None
        self._sampler = source.sampler(device) if config.next_item.loss == "sampled_softmax" else None
        self._order = torch.zeros(self._count, dtype=torch.int64, device=device)
        self._plan = self._no_plan(device) if contrastive(config) else None
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.sizes = Sizes(0, 0, 0)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def _no_plan(self, device: torch.device) -> ViewPlan:
        """Two views of every sequence, and one of the row that follows the last, which no view has."""
        nothing = torch.zeros(2 * self._count + 1, dtype=torch.int64, device=device)
        return ViewPlan(nothing + 1, nothing.clone(), nothing.clone(), nothing.clone())

    def begin_epoch(self) -> bool:
        """Draw the order of the sequences, and which views of them; make room for the largest step.

        Everything is drawn from PyTorch's own generator of the device.

        Returns:
            Whether steps are of another shape now.
        """
        drawn = torch.randperm(len(self._starts_S), device=self._order.device)
        self._order.copy_(drawn[: self._count])
        self._cursor.zero_()
        starts_S, ends_S = self._starts_S[self._order], self._ends_S[self._order] - 1
        lengths_S = ends_S - starts_S
        sums = [self._largest(lengths_S.clamp(max=self._window)), lengths_S.new_zeros(()), lengths_S.new_zeros(())]
        if self._plan is not None:
            plan = ViewPlan.draw(lengths_S.repeat(2), self._config.views, None)
            for own, new in zip(self._plan, plan, strict=True):
                own[:-1].copy_(new)
            first_S, second_S = plan.spans(self._window)[1].chunk(2)
            sums[1:] = [self._largest(2 * lengths_S), self._largest(first_S + second_S)]
        needed = Sizes(*torch.stack(sums).tolist())
        if self.sizes.fits(needed):
            return False
        self.sizes = self._with_slack(needed)
        return True

    def _largest(self, lengths_S: Tensor) -> Tensor:
        """Largest sum of a step."""
        size = self._config.batch_size
        padded = F.pad(lengths_S, (0, self._steps * size - len(lengths_S)))
        return padded.view(self._steps, size).sum(1).max()

    def _with_slack(self, needed: Sizes) -> Sizes:
        """Add some room; all positions together fill whole chunks of the attention."""
        inputs, whole, views = (-(-int(size * (1 + _SLACK)) // 8) * 8 for size in needed)
        padding, chunk = self._window * pools_padding(self._config), chunk_of(self._window)
        rest = -(inputs + views + padding) % chunk
        return Sizes(inputs, whole, views + rest) if views else Sizes(inputs + rest, whole, views)

    def epoch(self) -> Iterator[int]:
        """Yield the number of sequences of each step, which `next_batch` is to be asked for."""
        size = self._config.batch_size
        for start in range(0, self._count, size):
            yield min(size, self._count - start)

    def next_batch(self, count: int) -> TrainingBatch:
        """Assemble the next `count` sequences of the epoch, the number that `epoch` names, into a step."""
        places_B = self._cursor + torch.arange(count, device=self._cursor.device)
        self._cursor.add_(count)
        step_B = self._order[places_B]
        starts_B, ends_B = self._starts_S[step_B], self._ends_S[step_B] - 1
        inputs, source_N = self._inputs(starts_B, ends_B)
        views = None if self._plan is None else self._views(self._plan, starts_B, ends_B, places_B)
        owners_B = self._owners_S[step_B]
        if self._config.next_item.prefixes:
            positives, weights, owners = self._items[ends_B].long(), None, owners_B
        else:
            used_N = inputs.slots.row < count
            after_N = (source_N + 1).clamp_(max=len(self._items) - 1)
            positives = torch.where(used_N, self._items[after_N].long(), 1)
            weights, owners = used_N.float(), F.pad(owners_B, (0, 1))[inputs.slots.row]
        return TrainingBatch(
            rows=self._laid_out(inputs, views),
            num_sequences=count,
            positives_M=positives,
            weights_M=weights,
            negatives=self._negatives(owners),
            share=1.0,
            views=None if views is None else self._layout([views]),
            exchange=None,
        )

    def _inputs(self, starts_B: Tensor, ends_B: Tensor) -> tuple[_Piece, Tensor]:
        """The last items of each sequence that the window holds, and where each stands among all items."""
        starts_B = torch.maximum(starts_B, ends_B - self._window)
        lengths_B = ends_B - starts_B
        where = slots(lengths_B, self.sizes.inputs)
        items_N, source_N = _read(self._items, starts_B, where)
        return _Piece(lengths_B, where, items_N), source_N

    def _views(self, drawn: ViewPlan, starts_B: Tensor, ends_B: Tensor, places_B: Tensor) -> _Piece:
        """First views of all sequences, then second views."""
        starts_2B, lengths_2B = starts_B.repeat(2), (ends_B - starts_B).repeat(2)
        where = slots(lengths_2B, self.sizes.whole)
        items_N, _ = _read(self._items, starts_2B, where)
        after_last = torch.full_like(self._cursor, 2 * self._count)
        plan = drawn.take(torch.cat((places_B, places_B + self._count, after_last)))
        viewed_N = apply_plan(plan, items_N, where.row, where.place, None)
        first_2B, kept_2B = (part[:-1] for part in plan.spans(self._window))
        begins_2B = lengths_2B.cumsum(0) - lengths_2B + first_2B
        where = slots(kept_2B, self.sizes.views)
        return _Piece(kept_2B, where, _read(viewed_N, begins_2B, where)[0])

    def _laid_out(self, inputs: _Piece, views: _Piece | None) -> PackedBatch:
        """What the encoder reads: inputs, views, and a window of nothing but padding, as far as each is wanted."""
        pieces = [inputs] if views is None else [inputs, views]
        if pools_padding(self._config):
            length = torch.full_like(self._cursor, self._window)
            where = slots(length, self._window)
            pieces.append(_Piece(length, where, torch.full_like(where.row, PADDING)))
        return self._layout(pieces)

    def _layout(self, pieces: list[_Piece]) -> PackedBatch:
        total, first, rows = sum(len(piece.lengths_B) for piece in pieces), 0, []
        for piece in pieces:
            count, row_N = len(piece.lengths_B), piece.slots.row
            rows.append(torch.where(row_N < count, row_N + first, total))
            first += count
        return PackedBatch(
            lengths_B=torch.cat([piece.lengths_B for piece in pieces]),
            row_M=torch.cat(rows),
            items_N=torch.cat([piece.items_N for piece in pieces]),
            place_N=torch.cat([piece.slots.place for piece in pieces]),
            age_N=torch.cat([piece.slots.age for piece in pieces]),
            chunk=chunk_of(self._window),
        )

    def _negatives(self, owners: Tensor) -> Negatives | None:
        """What next items are told apart from; `owners` are their users."""
        if self._unseen is not None:
            return Negatives(items=self._unseen.draw(owners, None), log_counts=None)
        if self._sampler is None:
            return None
        items_S, log_counts_S = self._sampler.draw(None)
        return Negatives(items=items_S, log_counts=log_counts_S)


def _read(items: Tensor, starts_B: Tensor, where: Slots) -> tuple[Tensor, Tensor]:
    """Read rows that begin at `starts_B`: their items, 0 after the last row, and the place of each."""
    source_N = (F.pad(starts_B, (0, 1))[where.row] + where.place).clamp_(max=len(items) - 1)
    return torch.where(where.row < len(starts_B), items[source_N].long(), PADDING), source_N
