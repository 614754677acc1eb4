"""Training data on a GPU: steps are assembled where they are computed, from one flat array of items.

Many steps are assembled at once, all in the same shapes, into one table with a row a step. What a step then does
depends on no value that the host would have to ask for, so that it can be recorded once and replayed: see `recording`.
The host waits once an epoch, before its first step, to learn how many positions the largest step needs.

Axes: `S` sequences of an epoch, `C` steps of a chunk, `B` sequences of a step, `R` rows that a step encodes, `N` flat
positions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.config import TrainConfig
from elcrec.data.dataset import PADDING
from elcrec.model.elcrec import Negatives, TrainingBatch, fills_windows, pools_padding
from elcrec.model.packing import PackedBatch, Slots, chunk_of, slots
from elcrec.model.views import ViewPlan, apply_plan
from elcrec.training.batches import TrainingData, contrastive

_CHUNK_STEPS = 32
_DEVIATIONS = 5
"""Room beyond a mean step, in standard deviations: of millions of steps hardly one is larger."""


class Sizes(NamedTuple):
    """Positions that a step has room for: inputs, whole sequences before they become views, and views."""

    inputs: int
    whole: int
    views: int

    def fits(self, needed: "Sizes") -> bool:
        """Whether a step of that size has room."""
        return all(own >= other for own, other in zip(self, needed, strict=True))


class _Piece(NamedTuple):
    """Rows of one kind in each step of a chunk: how many positions each takes, what lies where, and the items."""

    lengths_CB: Tensor
    slots: Slots
    items_CN: Tensor


class ResidentData:
    """The training part of all sequences in a device's own memory, cut into steps."""

    def __init__(self, source: TrainingData, config: TrainConfig, device: torch.device) -> None:
        """Copy what training reads to the device."""
        self._config, self._window, self._size = config, config.encoder.window, config.batch_size
        self._filled = fills_windows(config)
        self._chunk = self._window if self._filled else chunk_of(self._window)
        spans = source.spans()
        self._items = torch.from_numpy(spans.items).to(device)
        # One sequence more, of which there is nothing to read, fills up the last chunk.
        self._nothing = len(spans.ends)
        self._starts_S, self._owners_S = (
            F.pad(torch.from_numpy(part), (0, 1)).to(device) for part in (spans.starts, spans.owners)
        )
        self._ends_S = F.pad(torch.from_numpy(spans.ends), (0, 1), value=1).to(device)
        self._count, self._steps = source.num_sequences, len(source)
        self._chunk_steps = min(_CHUNK_STEPS, self._steps)
        self._unseen = source.unseen_items(device=device) if config.next_item.loss == "bce" else None
        self._sampler = source.sampler(device) if config.next_item.loss == "sampled_softmax" else None
        places = -(-self._steps // self._chunk_steps) * self._chunk_steps * self._size
        self._order = torch.full((places,), self._nothing, device=device)
        self._plan = ViewPlan.of_nothing((2, places), device) if contrastive(config) else None
        self._table_CF = torch.empty(0, 0, dtype=torch.int64, device=device)
        self._widths: dict[str, int] = {}
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.sizes = Sizes(0, 0, 0)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def begin_epoch(self) -> bool:
        """Draw the order of the sequences, and which views of them; make room for the largest step.

        Everything is drawn from PyTorch's own generator of the device.

        Returns:
            Whether steps are of another shape now.
        """
        drawn = torch.randperm(self._nothing, device=self._order.device)
        self._order[: self._count].copy_(drawn[: self._count])
        lengths_S = self._ends_S[self._order] - 1 - self._starts_S[self._order]
        by_sequence = [self._taken(lengths_S), torch.zeros_like(lengths_S), torch.zeros_like(lengths_S)]
        if self._plan is not None:
            plan = ViewPlan.draw(lengths_S[: self._count].repeat(2, 1), self._config.views, None)
            for own, new in zip(self._plan, plan, strict=True):
                own[:, : self._count].copy_(new)
            by_sequence[1:] = [2 * lengths_S, self._taken(self._plan.spans(self._window)[1]).sum(0)]
        needed, likely = self._step_sizes(torch.stack(by_sequence))
        if not self.sizes.fits(needed):
            self.sizes = self._rounded(Sizes(*map(max, needed, likely)))
        elif self._widths:
            return False
        self._make_table()
        return True

    def _taken(self, lengths: Tensor) -> Tensor:
        """Positions that rows of so many items take: a window at most, or always where windows are filled."""
        return self._window * (lengths > 0) if self._filled else lengths.clamp(max=self._window)

    def _step_sizes(self, by_sequence_3S: Tensor) -> tuple[Sizes, Sizes]:
        """Size of the largest step of this epoch, and one that the steps of others most likely do not pass."""
        largest_3 = by_sequence_3S.view(3, -1, self._size).sum(2).max(1).values
        deviation_3, mean_3 = torch.std_mean(by_sequence_3S[:, : self._count].float(), 1)
        likely_3 = self._size * mean_3 + _DEVIATIONS * self._size**0.5 * deviation_3
        needed, likely = torch.stack((largest_3, likely_3.long())).tolist()
        return Sizes(*needed), Sizes(*likely)

    def _rounded(self, sizes: Sizes) -> Sizes:
        """Add a little room, so that all positions together fill whole chunks of the attention."""
        inputs, whole, views = (-(-size // self._chunk) * self._chunk for size in sizes)
        rest = -self._window * pools_padding(self._config) % self._chunk
        return Sizes(inputs, whole, views + rest) if views else Sizes(inputs + rest, whole, views)

    def _make_table(self) -> None:
        """Make room for what the steps of a chunk read: one row a step, its parts side by side."""
        size, viewed, padding = self._size, self._plan is not None, pools_padding(self._config)
        total = self.sizes.inputs + self.sizes.views + self._window * padding
        asked = size if self._config.next_item.prefixes else self.sizes.inputs
        self._widths = {"lengths": size * (1 + 2 * viewed) + padding}
        self._widths |= dict.fromkeys(("row", "items", "place", "age"), total) | {"positives": asked}
        if not self._config.next_item.prefixes:
            self._widths["counts"] = asked
        if self._unseen is not None:
            self._widths["negatives"] = asked
        if viewed:
            self._widths["view_row"] = self.sizes.views
        self._table_CF = self._cursor.new_zeros(self._chunk_steps, sum(self._widths.values()))

    def epoch(self) -> Iterator[int]:
        """Yield the number of sequences of each step, which `next_batch` is to be asked for."""
        for step in range(self._steps):
            if step % self._chunk_steps == 0:
                self._assemble(step)
            yield min(self._size, self._count - step * self._size)

    def _assemble(self, first: int) -> None:
        """Write what the steps from `first` on read into the table."""
        chunk = slice(first * self._size, (first + self._chunk_steps) * self._size)
        chosen_CB = self._order[chunk].view(self._chunk_steps, self._size)
        starts_CB, ends_CB = self._starts_S[chosen_CB], self._ends_S[chosen_CB] - 1
        owners_CB = self._owners_S[chosen_CB]
        lengths_CB = (ends_CB - starts_CB).clamp(max=self._window)
        inputs = self._piece(self._items, ends_CB, lengths_CB, self.sizes.inputs)
        pieces, parts = [inputs], {}
        if self._plan is not None:
            views = self._views(ViewPlan(*(part[:, chunk] for part in self._plan)), starts_CB)
            pieces.append(views)
            parts["view_row"] = views.slots.row
        if pools_padding(self._config):
            pieces.append(self._padding())
        if self._config.next_item.prefixes:
            parts["positives"] = self._items[ends_CB].long()
        else:
            after_CN = self._piece(self._items, ends_CB + 1, lengths_CB, self.sizes.inputs).items_CN
            # No loss knows an item 0; it stands where nothing is asked.
            parts |= {"positives": after_CN.clamp(min=1), "counts": (after_CN != PADDING).long()}
            owners_CB = F.pad(owners_CB, (0, 1)).gather(1, inputs.slots.row)
        if self._unseen is not None:
            parts["negatives"] = self._unseen.draw(owners_CB, None)
        parts |= self._laid_out(pieces)
        torch.cat([parts[name] for name in self._widths], 1, out=self._table_CF)
        self._cursor.zero_()

    def _piece(self, items: Tensor, ends_CB: Tensor, lengths_CB: Tensor, room: int) -> _Piece:
        """Read rows of so many items that end before `ends_CB`, behind padding where windows are filled."""
        taken_CB = self._taken(lengths_CB)
        where = slots(taken_CB, room)
        return _Piece(taken_CB, where, _read(items, ends_CB - taken_CB, taken_CB - lengths_CB, where))

    def _views(self, drawn: ViewPlan, starts_CB: Tensor) -> _Piece:
        """First views of all sequences of a step, then second views."""
        steps, room = self._chunk_steps, self.sizes.whole
        step_C1 = torch.arange(steps, device=starts_CB.device)[:, None]
        by_step = ViewPlan(*(part.view(2, steps, -1).transpose(0, 1).flatten(1) for part in drawn))
        where = slots(by_step.lengths_B, room)
        items_CN = _read(self._items, starts_CB.repeat(1, 2), torch.zeros_like(by_step.lengths_B), where)
        # The row after the last takes the rest of the room; a plan of as many items leaves it as it is.
        plan = ViewPlan(*(F.pad(part, (0, 1)) for part in by_step))
        plan.lengths_B[:, -1] = room
        flat = ViewPlan(*(part.flatten() for part in plan))
        row_M = (where.row + step_C1 * plan.lengths_B.shape[1]).flatten()
        viewed_M = apply_plan(flat, items_CN.flatten(), row_M, where.place.flatten(), None)
        first_CB, kept_CB = by_step.spans(self._window)
        begins_CB = step_C1 * room + by_step.lengths_B.cumsum(1) - by_step.lengths_B + first_CB
        return self._piece(viewed_M, begins_CB + kept_CB, kept_CB, self.sizes.views)

    def _padding(self) -> _Piece:
        """A window of nothing but padding in every step."""
        length_C1 = torch.full_like(self._table_CF[:, :1], self._window)
        where = slots(length_C1, self._window)
        return _Piece(length_C1, where, torch.full_like(where.row, PADDING))

    def _laid_out(self, pieces: list[_Piece]) -> dict[str, Tensor]:
        """What the encoder reads, a piece after another; rows are numbered through."""
        total, first, rows = sum(piece.lengths_CB.shape[1] for piece in pieces), 0, []
        for piece in pieces:
            count, row_CN = piece.lengths_CB.shape[1], piece.slots.row
            rows.append(torch.where(row_CN < count, row_CN + first, total))
            first += count
        return {
            "lengths": torch.cat([piece.lengths_CB for piece in pieces], 1),
            "row": torch.cat(rows, 1),
            "items": torch.cat([piece.items_CN for piece in pieces], 1),
            "place": torch.cat([piece.slots.place for piece in pieces], 1),
            "age": torch.cat([piece.slots.age for piece in pieces], 1),
        }

    def next_batch(self, count: int) -> TrainingBatch:
        """Return the next step of the epoch, of `count` sequences, the number that `epoch` names."""
        part = self._next_step()
        if count < self._size:
            self._leave_out(part, count)
        rows = PackedBatch(
            lengths_B=part["lengths"],
            row_M=part["row"],
            items_N=part["items"],
            place_N=part["place"],
            age_N=part["age"],
            chunk=self._chunk,
            sees_all=self._filled,
        )
        return TrainingBatch(
            rows=rows,
            num_sequences=count,
            positives_M=part["positives"],
            weights_M=part["counts"].float() if "counts" in part else None,
            negatives=self._negatives(part),
            share=1.0,
            views=self._compared(part, count),
            exchange=None,
        )

    def _next_step(self) -> dict[str, Tensor]:
        """Read the table's next row."""
        (row_F,) = self._table_CF.index_select(0, self._cursor)
        self._cursor.add_(1)
        parts = torch.split(row_F, list(self._widths.values()))
        return dict(zip(self._widths, parts, strict=True))

    def _leave_out(self, part: dict[str, Tensor], count: int) -> None:
        """Take a step of fewer sequences for one that has no rows for the others."""
        kinds, missing = 1 + 2 * (self._plan is not None), self._size - count
        lengths_kB, padding = part["lengths"].tensor_split([kinds * self._size])
        kept_kB = lengths_kB.view(kinds, -1)[:, :count]
        part["lengths"] = torch.cat((kept_kB.flatten(), padding))
        part["row"] = _renumbered(part["row"], self._size, missing, kinds)
        if self._plan is not None:
            part["view_row"] = _renumbered(part["view_row"], self._size, missing, kinds - 1)
        if self._config.next_item.prefixes:
            part |= {name: part[name][:count] for name in ("positives", "negatives") if name in part}

    def _compared(self, part: dict[str, Tensor], count: int) -> PackedBatch | None:
        """The views of a step on their own."""
        if self._plan is None:
            return None
        views = slice(self.sizes.inputs, self.sizes.inputs + self.sizes.views)
        return PackedBatch(
            lengths_B=part["lengths"][count : 3 * count],
            row_M=part["view_row"],
            items_N=part["items"][views],
            place_N=part["place"][views],
            age_N=part["age"][views],
            chunk=self._chunk,
            sees_all=self._filled,
        )

    def _negatives(self, part: dict[str, Tensor]) -> Negatives | None:
        """What next items are told apart from."""
        if "negatives" in part:
            return Negatives(items=part["negatives"], log_counts=None)
        if self._sampler is None:
            return None
        items_S, log_counts_S = self._sampler.draw(None)
        return Negatives(items=items_S, log_counts=log_counts_S)


def _read(items: Tensor, starts_CB: Tensor, skipped_CB: Tensor, where: Slots) -> Tensor:
    """Read the items of rows that begin at `starts_CB`; 0 at so many first positions of each and after the last row."""
    source_CN = F.pad(starts_CB, (0, 1)).gather(1, where.row) + where.place
    source_CN = source_CN.clamp_(min=0, max=len(items) - 1)
    # What stands after the last row is skipped: no place there is as far as there are positions.
    skipped_CN = F.pad(skipped_CB, (0, 1), value=where.row.shape[1]).gather(1, where.row)
    return torch.where(where.place >= skipped_CN, items[source_CN].long(), PADDING)


def _renumbered(row_N: Tensor, size: int, missing: int, kinds: int) -> Tensor:
    """Numbers of rows where each of so many kinds of `size` rows lacks its last `missing` ones."""
    return row_N - missing * torch.div(row_N, size, rounding_mode="floor").clamp_(max=kinds)
