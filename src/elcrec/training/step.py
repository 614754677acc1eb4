"""The steps of an epoch: their input, and the encoder's states, by named parts.

Axes: `B` sequences, `R` rows of a part, `M` items of rows, row after row, `S` draws, `D` hidden size, `T` window.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from elcrec.model.layout import Layout, Rows
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.distributed import gather_states

PartName = Literal["inputs", "views", "padding"]


class Part(NamedTuple):
    """A part of a step: a range of rows and of their items."""

    rows: slice
    items: slice


Parts = Mapping[PartName, Part]
"""`inputs`: the sequences without their last items. `views`: the first views of all sequences, then the second ones.
`padding`: one window that holds only padding."""


class Negatives(NamedTuple):
    """Negatives for the next items: one per target, [M], or some that all targets share, [S].

    For shared ones, `log_counts` is the log of the expected count of each among S draws.
    """

    items: Tensor
    log_counts: Tensor | None = None


@dataclass(frozen=True)
class States:
    """The states of a step's items, row after row, by parts."""

    states_MD: Tensor
    rows: Rows
    parts: Parts

    def of(self, part: PartName) -> Tensor:
        """Return the states of a part's items, [M, D]."""
        return self.states_MD[self.parts[part].items]

    def rows_of(self, part: PartName) -> Rows:
        """Return the row, within a part, of each of its items."""
        rows, items = self.parts[part]
        lengths_R = self.rows.lengths_B[rows]
        # Positions after a part's last row belong to none of its rows.
        return Rows(lengths_B=lengths_R, row_M=(self.rows.row_M[items] - rows.start).clamp(max=len(lengths_R)))

    def means(self, part: PartName) -> Tensor:
        """Return the mean state of each of a part's rows, [R, D]."""
        rows = self.parts[part].rows
        return self._sums[rows] / self.rows.lengths_B[rows, None]

    @cached_property
    def _sums(self) -> Tensor:
        """The sum of the states of each row, computed once, [R, D]."""
        return self.rows.sum(self.states_MD)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How to gather the states of all processes' rows: their inputs, then their views.

    `source_M` is the position of each of their items among the gathered states, `longest` the largest number of states
    of a process.
    """

    rows: Rows
    parts: Parts
    source_M: Tensor
    longest: int

    def gather(self, states_MD: Tensor) -> States:
        """Return all processes' states, given those of this one; gradients reach every process."""
        gathered = gather_states(F.pad(states_MD, (0, 0, 0, self.longest - len(states_MD))))
        return States(gathered.index_select(0, self.source_M), self.rows, self.parts)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step's input.

    Attributes:
        rows: everything that the encoder reads in one pass.
        parts: the parts of these rows by name.
        num_sequences: B, the number of users, or of prefixes of users, over all processes.
        targets_M: the next item after each item of the inputs, or after each prefix.
        weights_M: weight of each of them in L_next; `None` if all are equal.
        negatives: drawn items; `None` if the loss uses the whole catalogue.
        share: weight of this process's L_next, so that the mean over processes is the mean over all targets.
        exchange: gathers the states of all processes; `None` for a single process.
    """

    rows: Layout
    parts: Parts
    num_sequences: int
    targets_M: Tensor
    weights_M: Tensor | None = None
    negatives: Negatives | None = None
    share: float = 1.0
    exchange: Exchange | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """The data of a step for the loss terms.

    Attributes:
        predicting_MD: the state before each target.
        table_VD: the item table, [V + 1, D].
        vectors: item vectors that a term requested (`Term.looked_up`), by its name.
        states: the states of all processes' sequences, for terms that need them.
        padding_TD: the states of an empty window, for terms that need them.
    """

    model: SequenceModel
    step: Step
    predicting_MD: Tensor
    table_VD: Tensor
    vectors: Mapping[str, list[Tensor]] = field(default_factory=dict)
    states: States
    padding_TD: Tensor | None = None


Update = Callable[[Step], dict[str, Tensor]]
"""Updates the weights by a step; returns its losses by name."""


class Steps(ABC):
    """The steps of an epoch; a checkpoint must keep `room` to continue the draws unchanged."""

    room: list[int]

    @abstractmethod
    def epoch(self, seed: int) -> Iterator[Any]:
        """Draw an epoch with new views and negatives, and yield its steps in the form that `run` accepts."""

    def running(self) -> AbstractContextManager[None]:
        """Return the context in which an epoch's steps run."""
        return nullcontext()

    def run(self, step: Any, update: Update) -> dict[str, Tensor]:
        """Update the weights by a step from `epoch`."""
        return update(step)
