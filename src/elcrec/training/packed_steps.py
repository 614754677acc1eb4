"""Steps packed on a GPU, from data that stays in its memory, recorded once and replayed.

Many steps are assembled at once, all with the same shapes, into one table with one row per step. A step then needs no
value for which the host would have to wait: see `recording`. The host waits once per epoch, before its first step, for
the number of positions of the largest step.

Axes: `S` sequences of an epoch, `C` steps of a chunk, `B` sequences of a step, `R` rows, `N` and `M` positions, `F`
columns of the table; `3` is inputs, whole sequences and views.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.model.packing import PackedLayout, chunk_of
from elcrec.training.assembly import Assembler, Piece, Room
from elcrec.training.data import TrainingData
from elcrec.training.recording import Recorder
from elcrec.training.step import Negatives, Part, PartName, Parts, Step, Steps, Update
from elcrec.training.terms.term import Need
from elcrec.training.views import ViewPlan

_CHUNK_STEPS = 32
_DEVIATIONS = 5
"""Room beyond a mean step, in standard deviations: hardly one of millions of steps is larger."""


class PackedSteps(Steps):
    """Assembles steps on the GPU that runs them; all draws come from PyTorch's own generator of the device."""

    def __init__(self, data: TrainingData, config: TrainConfig, needs: frozenset[Need], device: torch.device) -> None:
        """Copy the training data to the device."""
        self._config, self._needs, self._size = config, needs, config.batch_size
        self._assembler = Assembler(data, config, needs, device, resident=True)
        self._window, self._encoded = config.encoder.window, config.padding == "encoded"
        self._chunk = self._window if self._encoded else chunk_of(self._window)
        self._sampler = data.sampler(device) if config.next_item.loss == "sampled_softmax" else None
        self._recorder = Recorder(device)
        self._weighted = data.weights is not None
        self._count, self._steps = data.num_sequences, data.num_steps
        self._chunk_steps = min(_CHUNK_STEPS, self._steps)
        places = -(-self._steps // self._chunk_steps) * self._chunk_steps * self._size
        self._nothing = len(data.ends_S)  # the extra sequence after all others, which stands in for a missing one
        self._order_S = torch.full((places,), self._nothing, device=device)
        self._plan = ViewPlan.of_nothing((2, places), device) if "views" in needs else None
        self._table_CF = torch.empty(0, 0, dtype=torch.int64, device=device)
        self._widths: dict[str, int] = {}
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.room = [0, 0, 0]

    def epoch(self, seed: int) -> Iterator[int]:  # noqa: ARG002 - PyTorch's own generator is seeded already
        """Draw an epoch and yield the number of sequences of each step."""
        self._draw()
        for step in range(self._steps):
            if step % self._chunk_steps == 0:
                self._assemble(step)
            yield min(self._size, self._count - step * self._size)

    def running(self) -> AbstractContextManager[None]:
        """Return the context of the stream from which steps are recorded."""
        return self._recorder.running()

    def run(self, step: int, update: Update) -> dict[str, Tensor]:
        """Update the weights by the next step of `count` sequences; a step of a known size is replayed."""
        return self._recorder.run(step, lambda: update(self.next_step(step)))

    def _draw(self) -> None:
        """Draw the order of the sequences and the plans of their views; make room for the largest step."""
        drawn = torch.randperm(self._nothing, device=self._order_S.device)
        self._order_S[: self._count].copy_(drawn[: self._count])
        lengths_S = self._assembler.lengths(self._order_S)
        plan = self._assembler.draw_views(lengths_S[: self._count], None)
        if self._plan is not None and plan is not None:
            for own, new in zip(self._plan, plan, strict=True):
                own[:, : self._count].copy_(new)
        needed, likely = self._step_sizes(torch.stack(self._assembler.room(lengths_S, self._plan)))
        fits = all(own >= other for own, other in zip(self.room, needed, strict=True))
        if not fits:
            self.room = self._rounded([max(sizes) for sizes in zip(needed, likely, strict=True)])
        if not fits or not self._widths:
            self._make_table()
            self._recorder.forget()

    def _step_sizes(self, by_sequence_3S: Tensor) -> tuple[list[int], list[int]]:
        """Return the size of this epoch's largest step, and one that other epochs' steps will hardly exceed."""
        largest_3 = by_sequence_3S.view(3, -1, self._size).sum(2).max(1).values
        deviation_3, mean_3 = torch.std_mean(by_sequence_3S[:, : self._count].float(), 1)
        likely_3 = self._size * mean_3 + _DEVIATIONS * self._size**0.5 * deviation_3
        needed, likely = torch.stack((largest_3, likely_3.long())).tolist()
        return needed, likely

    def _rounded(self, room: list[int]) -> list[int]:
        """Round the room up, so that all positions together fill whole chunks of the attention."""
        inputs, whole, views = (-(-size // self._chunk) * self._chunk for size in room)
        rest = -self._window * ("padding" in self._needs) % self._chunk
        return [inputs, whole, views + rest] if views else [inputs + rest, whole, views]

    def _parts(self, count: int) -> Parts:
        """Return the positions of the parts of a step of `count` sequences."""
        inputs, _, views = self.room
        sizes = {"inputs": (count, inputs), "views": (2 * count, views), "padding": (1, self._window)}
        parts: dict[PartName, Part] = {}
        row = item = 0
        for name in self._names:
            rows, items = sizes[name]
            parts[name] = Part(slice(row, row + rows), slice(item, item + items))
            row, item = row + rows, item + items
        return parts

    @property
    def _names(self) -> list[PartName]:
        more: tuple[PartName, ...] = ("views", "padding")
        return ["inputs", *(name for name in more if name in self._needs)]

    def _make_table(self) -> None:
        """Allocate the table for the steps of a chunk: one row per step, its columns side by side."""
        last = list(self._parts(self._size).values())[-1]
        asked = self._size if self._config.next_item.prefixes else self.room[0]
        self._widths = {"lengths": last.rows.stop} | dict.fromkeys(("row", "items", "place", "age"), last.items.stop)
        self._widths["targets"] = asked
        if self._config.next_item.loss == "bce":
            self._widths["negatives"] = asked
        if self._weighted:
            self._widths["weights"] = asked
        self._table_CF = self._cursor.new_zeros(self._chunk_steps, sum(self._widths.values()))

    def _assemble(self, first: int) -> None:
        """Write the inputs of the steps from `first` on into the table."""
        chunk = slice(first * self._size, (first + self._chunk_steps) * self._size)
        chosen_CB = self._order_S[chunk].view(self._chunk_steps, self._size)
        plan = None if self._plan is None else ViewPlan(*(part[:, chunk] for part in self._plan))
        assembled = self._assembler.assemble(chosen_CB, plan, Room(*self.room), None)
        columns = _side_by_side(list(assembled.pieces.values())) | {"targets": assembled.targets}
        if assembled.negatives is not None:
            columns["negatives"] = assembled.negatives
        if assembled.weights is not None:
            columns["weights"] = assembled.weights.double().view(torch.int64)  # the table holds integers
        torch.cat([columns[name] for name in self._widths], 1, out=self._table_CF)
        self._cursor.zero_()

    def next_step(self, count: int) -> Step:
        """Return the next step of the epoch, of `count` sequences, the number that `epoch` yields."""
        (row_F,) = self._table_CF.index_select(0, self._cursor)
        self._cursor.add_(1)
        columns = dict(zip(self._widths, torch.split(row_F, list(self._widths.values())), strict=True))
        if count < self._size:
            self._leave_out(columns, count)
        weights_M = columns.pop("weights").view(torch.float64).float() if self._weighted else None
        lengths_B, row_M, items_N, place_N, ages_N, targets_M, *negatives = columns.values()
        rows = {"lengths_B": lengths_B, "row_M": row_M, "items_N": items_N, "place_N": place_N, "ages_N": ages_N}
        drawn = negatives if negatives or self._sampler is None else self._sampler.draw(None)
        return Step(
            rows=PackedLayout(**rows, chunk=self._chunk, sees_all=self._encoded),
            parts=self._parts(count),
            num_sequences=count,
            # The losses do not accept item 0, which marks positions without a target.
            targets_M=targets_M.clamp(min=1),
            weights_M=(targets_M != 0).float()
            if weights_M is None and not self._config.next_item.prefixes
            else weights_M,
            negatives=Negatives(*drawn) if drawn else None,
        )

    def _leave_out(self, columns: dict[str, Tensor], count: int) -> None:
        """Turn a full step into one of fewer sequences, without rows for the others."""
        kinds, missing = 1 + 2 * ("views" in self._needs), self._size - count
        lengths_kB, padding = columns["lengths"].tensor_split([kinds * self._size])
        columns["lengths"] = torch.cat((lengths_kB.view(kinds, -1)[:, :count].flatten(), padding))
        passed = torch.div(columns["row"], self._size, rounding_mode="floor").clamp_(max=kinds)
        columns["row"] = columns["row"] - missing * passed
        if self._config.next_item.prefixes:
            columns |= {name: columns[name][:count] for name in ("targets", "negatives", "weights") if name in columns}


def _side_by_side(pieces: list[Piece]) -> dict[str, Tensor]:
    """Return the encoder's input for each step, one piece after another, with consecutive row numbers."""
    total, first, rows = sum(piece.lengths_CR.shape[1] for piece in pieces), 0, []
    for piece in pieces:
        count, row_CN = piece.lengths_CR.shape[1], piece.slots.row
        rows.append(torch.where(row_CN < count, row_CN + first, total))
        first += count
    return {
        "lengths": torch.cat([piece.lengths_CR for piece in pieces], 1),
        "row": torch.cat(rows, 1),
        "items": torch.cat([piece.items_CN for piece in pieces], 1),
        "place": torch.cat([piece.slots.place for piece in pieces], 1),
        "age": torch.cat([piece.slots.age for piece in pieces], 1),
    }
