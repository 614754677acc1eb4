"""Steps in groups of rows of equal length, of exactly the size needed: for CPUs, and for several processes.

Axes: `U` sequences of a chunk of steps, `S` sequences of an epoch, `R` rows, `M` items of rows one after another.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.data.ragged import IntArray, Ragged
from elcrec.model.grouping import group_steps
from elcrec.model.layout import CPU, Rows
from elcrec.ops.device import to_device
from elcrec.training.assembly import Assembled, Assembler, Room
from elcrec.training.data import TrainingData
from elcrec.training.distributed import Ranks
from elcrec.training.step import Exchange, Negatives, Part, PartName, Parts, Step, Steps
from elcrec.training.terms.term import Need

_CHUNK_STEPS = 32


class GroupedSteps(Steps):
    """Assembles many steps at once on the CPU; all ranks make the same draws and take their share of every step."""

    def __init__(
        self, data: TrainingData, config: TrainConfig, needs: frozenset[Need], device: torch.device, ranks: Ranks
    ) -> None:
        """Prepare steps for a device."""
        self._data, self._config, self._device, self._ranks = data, config, device, ranks
        self._assembler = Assembler(data, config, needs, CPU, resident=False)
        self._sampler = data.sampler() if config.next_item.loss == "sampled_softmax" else None
        self._encoded = config.padding == "encoded"
        self.room = []

    def epoch(self, seed: int) -> Iterator[Step]:
        """Draw an epoch: sequences in random order, fresh negatives and views."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self._data.ends_S), generator=generator)[: self._data.num_sequences]
        for chosen_U in torch.split(order, _CHUNK_STEPS * self._config.batch_size):
            yield from self._steps(chosen_U, generator)

    def _steps(self, chosen_U: Tensor, generator: torch.Generator) -> Iterator[Step]:
        """Make the steps of a chunk of sequences."""
        assembled = self._assemble(chosen_U, generator)
        chunk = _Chunk(assembled, prefixes=self._config.next_item.prefixes)
        whole = [part.numpy() for part in torch.split(torch.arange(len(chosen_U)), self._config.batch_size)]
        own = [step[self._ranks.index :: self._ranks.count] for step in whole]
        rows = [chunk.encoded(sequences) for sequences in own]
        layouts = group_steps(
            chunk.rows.take(np.concatenate(rows)), list(map(len, rows)), self._device, sees_all=self._encoded
        )
        asked = (assembled.targets, assembled.negatives, assembled.weights)
        targets, negatives, weights = (chunk.asked(part, own) for part in asked)
        for index, layout in enumerate(layouts):
            targets_M = to_device(targets[index], self._device)
            gaps = self._encoded and not self._config.next_item.prefixes
            yield Step(
                rows=layout,
                parts=_parts(chunk.rows.lengths[rows[index]], chunk.counts(len(own[index]))),
                num_sequences=len(whole[index]),
                # The losses do not accept item 0, which marks positions without a target.
                targets_M=targets_M.clamp(min=1) if gaps else targets_M,
                weights_M=self._weights(targets_M, weights[index] if weights else None),
                negatives=self._negatives(negatives[index] if negatives else None, generator),
                share=chunk.share(own[index], whole[index], self._ranks.count),
                exchange=chunk.exchange(whole[index], self._ranks, self._device) if self._ranks.count > 1 else None,
            )

    def _assemble(self, chosen_U: Tensor, generator: torch.Generator) -> Assembled:
        """Assemble a chunk as one step, of exactly the size that it needs."""
        lengths_U = self._assembler.lengths(chosen_U)
        plan = self._assembler.draw_views(lengths_U, generator)
        room = Room(*(int(part.sum()) for part in self._assembler.room(lengths_U, plan)))
        return self._assembler.assemble(chosen_U[None], plan, room, generator)

    def _weights(self, targets_M: Tensor, weights_M: Tensor | None) -> Tensor | None:
        """Return the weights of the targets, 0 for positions without a target."""
        if weights_M is not None:
            return to_device(weights_M, self._device)
        gaps = self._encoded and not self._config.next_item.prefixes
        return (targets_M != 0).float() if gaps else None

    def _negatives(self, drawn_M: Tensor | None, generator: torch.Generator) -> Negatives | None:
        if drawn_M is not None:
            return Negatives(to_device(drawn_M, self._device))
        if self._sampler is None:
            return None
        return Negatives(*(to_device(part, self._device) for part in self._sampler.draw(generator)))


class _Chunk:
    """Steps that were assembled as one; `rows` are all inputs, first views, second views and padding, in order."""

    def __init__(self, assembled: Assembled, *, prefixes: bool) -> None:
        pieces = assembled.pieces.values()
        lengths = [piece.lengths_CR[0] for piece in pieces]
        self.rows = Ragged.of(torch.cat([piece.items_CN[0] for piece in pieces]).numpy(), torch.cat(lengths).numpy())
        self._names, self._count = assembled.pieces.keys(), len(lengths[0])
        counts = np.ones(self._count, np.int64) if prefixes else lengths[0].numpy()
        self._targets = Ragged.of(assembled.targets[0].numpy(), counts)
        weights = assembled.targets != 0 if assembled.weights is None else assembled.weights.double()
        self._asked = Ragged.of(weights[0].numpy(), counts)

    def counts(self, sequences: int) -> dict[PartName, int]:
        """Return the number of rows of each part for a number of sequences."""
        counts: dict[PartName, int] = {"inputs": sequences, "views": 2 * sequences, "padding": 1}
        return {name: count for name, count in counts.items() if name in self._names}

    def encoded(self, sequences: IntArray, *, padding: bool = True) -> IntArray:
        """Return the rows to encode for these sequences, part after part."""
        kinds = [sequences + kind * self._count for kind in range(3 if "views" in self._names else 1)]
        return np.concatenate([*kinds, [len(self.rows) - 1]] if padding and "padding" in self._names else kinds)

    def asked(self, values: Tensor | None, shares: list[IntArray]) -> list[Tensor]:
        """Cut values of all targets of the chunk into the parts of each step; `None` stays `None`."""
        if values is None:
            return []
        every = Ragged(values=values[0].numpy(), offsets=self._targets.offsets)
        return [torch.from_numpy(every.take(share).values) for share in shares]

    def share(self, own: IntArray, whole: IntArray, ranks: int) -> float:
        """Return the weight of a rank's mean over its targets that makes the mean over ranks that over all targets."""
        asked, every = (float(self._asked.take(sequences).values.sum()) for sequences in (own, whole))
        return ranks * asked / every if every else 1.0

    def exchange(self, step: IntArray, ranks: Ranks, device: torch.device) -> Exchange:
        """Return the positions of the items of all ranks' rows among the gathered states."""
        lengths = self.rows.lengths
        shares = [self.encoded(step[rank :: ranks.count], padding=False) for rank in range(ranks.count)]
        longest = max(int(lengths[share].sum()) for share in shares)
        starts = np.empty(len(lengths), np.int64)
        for rank, share in enumerate(shares):
            starts[share] = rank * longest + np.cumsum(lengths[share]) - lengths[share]
        every = self.encoded(step, padding=False)
        counts = self.counts(len(step))
        counts.pop("padding", None)
        rows = Ragged.of(np.empty(0, np.int64), lengths[every])
        source_M = (starts[every] - rows.offsets[:-1])[rows.owners] + np.arange(rows.offsets[-1])
        tensors = [to_device(torch.from_numpy(part), device) for part in (rows.lengths, rows.owners, source_M)]
        layout = Rows(lengths_B=tensors[0], row_M=tensors[1])
        return Exchange(rows=layout, parts=_parts(rows.lengths, counts), source_M=tensors[2], longest=longest)


def _parts(lengths_R: IntArray, counts: Mapping[PartName, int]) -> Parts:
    """Cut rows of these lengths into parts with the given numbers of rows."""
    ends, first = [0, *np.cumsum(lengths_R).tolist()], 0
    parts: dict[PartName, Part] = {}
    for name, count in counts.items():
        parts[name] = Part(slice(first, first + count), slice(ends[first], ends[first + count]))
        first += count
    return parts
