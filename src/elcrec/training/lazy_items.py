"""Lazy Adam on only the item vectors that a step reads, so that its cost does not depend on the catalogue.

From some 10^5 items on, a gradient of the whole table and an Adam step on every row cost more than everything else.
Here a step uses a small table of the items that it reads, renumbered, in place of the whole table, and the result is
written back. The moments of a row do not change while no step reads it, as in TensorFlow's LazyAdam and PyTorch's
SparseAdam: rows that Adam would move only by momentum stay unchanged. The moving average of a row is updated when the
row is next read, and equals an average that is updated at every step.

Axes: `N` items that a step reads, with repeats, `R` distinct ones, `V` items and padding, `D` hidden size.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.data.dataset import PADDING
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.average import MovingAverage
from elcrec.training.distributed import Ranks, gather_integers
from elcrec.training.item_intents import only_items
from elcrec.training.step import Step

_FIRST_DECAY, _SECOND_DECAY, _EPS = 0.9, 0.999, 1e-8
"""Parameters of Adam, as in the optimiser of the other weights (Kingma and Ba, ICLR 2015)."""
_NOTHING_KEPT = 1e-300
"""Replaces 0 in sums of logarithms."""


class LazyItems(nn.Module):
    """Updates the items' own vectors in a model, and those of its moving average, row by row.

    Attributes:
        first_VD: first moments; `second_VD` are the second moments.
        taken: number of steps so far. Like all of these it is on the device, because a recorded step reads and writes
            fixed memory.
        log_kept: log of the share of the initial average that all steps so far would have kept.
        settled_V: value of `log_kept` when the average of each row was last updated.
    """

    first_VD: Tensor
    second_VD: Tensor
    taken: Tensor
    log_kept: Tensor
    settled_V: Tensor

    def __init__(self, model: SequenceModel, learning_rate: float, ranks: Ranks, *, fixed_shapes: bool) -> None:
        """Start with zero moments; with `fixed_shapes`, no step asks the device for the number of its items."""
        super().__init__()
        self._learning_rate, self._ranks, self._fixed_shapes = learning_rate, ranks, fixed_shapes
        table_VD = model.own_vectors.detach()
        for name in ("first_VD", "second_VD"):
            self.register_buffer(name, torch.zeros_like(table_VD))
        for name, size in (("taken", ()), ("log_kept", ()), ("settled_V", (len(table_VD),))):
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64, device=table_VD.device))

    @contextmanager
    def reading(self, model: SequenceModel, average: MovingAverage | None, step: Step) -> Iterator[Step]:
        """Replace the model's item table by one of only the step's items, and update these by its gradient."""
        table = model.own_vectors
        rows_R, places_N = self._named(step)
        with only_items(model, rows_R) as read:
            yield _renumbered(step, places_N)
        with torch.no_grad():
            moved_RD = self._moved(rows_R, read)
            if average is not None:
                self._follow(average, rows_R, read, moved_RD)
            table.index_copy_(0, rows_R, moved_RD)

    @torch.no_grad()
    def settle(self, model: SequenceModel, average: MovingAverage) -> None:
        """Update the average of every row."""
        shares_V1 = (self.log_kept - self.settled_V).exp().float()[:, None]
        averaged_VD = average.own_vectors
        averaged_VD.copy_(torch.lerp(model.own_vectors.detach(), averaged_VD, shares_V1))
        self.settled_V.copy_(self.log_kept.expand_as(self.settled_V))

    def _named(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return the items that a step of all ranks reads, padding first, [R], and each one's position there, [N]."""
        own_N = torch.cat([step.rows.items_N.new_tensor([PADDING]), *_items(step)])
        if self._ranks.count == 1:
            return _distinct(own_N, fixed_shape=self._fixed_shapes)
        rows_R, places_N = _distinct(torch.cat((own_N, gather_integers(own_N))), fixed_shape=False)
        return rows_R, places_N[: len(own_N)]

    def _moved(self, rows_R: Tensor, read: nn.Parameter) -> Tensor:
        """Take Adam's step; return the new rows."""
        gradient_RD = torch.zeros_like(read) if read.grad is None else read.grad
        self.taken.add_(1)
        first_RD = self.first_VD[rows_R].lerp_(gradient_RD, 1 - _FIRST_DECAY)
        second_RD = self.second_VD[rows_R].mul_(_SECOND_DECAY)
        second_RD.addcmul_(gradient_RD, gradient_RD, value=1 - _SECOND_DECAY)
        self.first_VD.index_copy_(0, rows_R, first_RD)
        self.second_VD.index_copy_(0, rows_R, second_RD)
        first_bias, second_bias = (1 - decay**self.taken for decay in (_FIRST_DECAY, _SECOND_DECAY))
        spread_RD = second_RD.sqrt_().div_(second_bias.sqrt()).add_(_EPS)
        return read - first_RD.div_(spread_RD).mul_(self._learning_rate / first_bias)

    def _follow(self, average: MovingAverage, rows_R: Tensor, read: nn.Parameter, moved_RD: Tensor) -> None:
        """Update the average of the rows to the previous step, then move it towards the new rows."""
        earlier = self.taken - 1
        kept = ((1 + earlier) / (10 + earlier)).clamp(max=average.decay)
        kept = torch.where(earlier == 0, _NOTHING_KEPT, kept)
        averaged_VD, shares_R = average.own_vectors, (self.log_kept - self.settled_V[rows_R]).exp()
        before_RD = torch.lerp(read, averaged_VD[rows_R], shares_R.float()[:, None])
        averaged_VD.index_copy_(0, rows_R, torch.lerp(moved_RD, before_RD, kept.float()))
        self.log_kept.add_(kept.log())
        self.settled_V.index_copy_(0, rows_R, self.log_kept.expand(len(rows_R)))


def _items(step: Step) -> list[Tensor]:
    """Return all items of a step: inputs, targets and negatives; padding for targets that do not count."""
    counts_M = 1 if step.weights_M is None else step.weights_M != 0
    items = [step.rows.items_N, step.targets_M * counts_M]
    if step.negatives is not None:
        one_each = step.negatives.log_counts is None
        items.append(step.negatives.items * counts_M if one_each else step.negatives.items)
    return items


def _renumbered(step: Step, places_N: Tensor) -> Step:
    """Return the step with items replaced by their positions; position 0 is padding."""
    parts = _items(step)
    items_N, *others = torch.split(places_N[1:], [len(part) for part in parts])
    # The losses do not accept item 0, even where it does not count.
    targets_M, *drawn = (part.clamp(min=1) for part in others)
    rows = dataclasses.replace(step.rows, items_N=items_N)
    negatives = step.negatives and step.negatives._replace(items=drawn[0])
    return dataclasses.replace(step, rows=rows, targets_M=targets_M, negatives=negatives)


def _distinct(items_N: Tensor, *, fixed_shape: bool) -> tuple[Tensor, Tensor]:
    """Return the distinct items in ascending order, and the position of each item among them.

    With a fixed shape there are N of them, filled up with padding.
    """
    sorted_N, order_N = items_N.sort()
    rank_N = F.pad(sorted_N[1:] != sorted_N[:-1], (1, 0)).cumsum(0)
    rows_R = items_N.new_zeros(len(items_N) if fixed_shape else int(rank_N[-1]) + 1)
    return rows_R.scatter_(0, rank_N, sorted_N), torch.empty_like(rank_N).scatter_(0, order_N, rank_N)
