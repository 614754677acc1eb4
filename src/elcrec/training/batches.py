"""Steps of an epoch as tensors: sequences, next items, drawn negatives and views, without a loop over users.

Many steps are assembled at once and moved to the device in one go; a step is then a set of views of those tensors.

Axes: `U` sequences of a chunk, `B` sequences of a step, `M` items of rows one after another.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.data.dataset import PADDING, SequenceData
from elcrec.data.ragged import IntArray, Ragged
from elcrec.errors import UserError
from elcrec.model.elcrec import Negatives, TrainingBatch, fills_windows, pools_padding
from elcrec.model.grouping import GroupedBatch, Rows, group_steps
from elcrec.model.softmax import NegativeSampler
from elcrec.model.transfer import to_device
from elcrec.model.views import ViewPlan, apply_plan
from elcrec.training.distributed import ALONE, Exchange, Ranks
from elcrec.training.negatives import UnseenItems

_CHUNK_STEPS = 32
_USERS_AT_ONCE = 65_536
_CPU = torch.device("cpu")


class Spans(NamedTuple):
    """The sequences of an epoch among all items.

    Attributes:
        items: item indices of all users, one after another, held-out ones among them.
        starts: where each sequence starts, [S].
        ends: one past its last item, [S].
        owners: place of its user among those that are trained on, [S].
    """

    items: IntArray
    starts: IntArray
    ends: IntArray
    owners: IntArray


class TrainingData:
    """The training part of all sequences, cut into steps."""

    def __init__(self, data: SequenceData, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        """Keep the users who have at least two training items: one to read, one to predict.

        Raises:
            UserError: there are too few such users to train on.
        """
        users = np.flatnonzero(data.train_end > 1)
        if len(users) < max(2, ranks.count):
            raise UserError(f"{len(users)} users have two or more training items", fix="bring a longer log")
        self._config, self._ranks, self._num_items = config, ranks, data.num_items
        self._sequences, self._users, self._train_end = data.sequences, users, data.train_end
        self._starts, self._ends = self._cut()

    def __len__(self) -> int:
        """Steps in an epoch."""
        return math.ceil(self.num_sequences / self._config.batch_size)

    @property
    def num_sequences(self) -> int:
        """Sequences in an epoch, without a last step that has nothing to contrast or leaves a rank without a user."""
        rest = len(self._ends) % self._config.batch_size
        return len(self._ends) - (rest if rest < max(2, self._ranks.count) else 0)

    @property
    def num_users(self) -> int:
        """Users that are trained on."""
        return len(self._users)

    def sample(self, most: int, generator: torch.Generator) -> Ragged:
        """What the encoder reads of some users, at most so many: their training items but the last."""
        if most < self.num_users:
            chosen = np.sort(torch.randperm(self.num_users, generator=generator)[:most].numpy())
        else:
            chosen = np.arange(self.num_users)
        rows = self._training(chosen)
        return rows.head(rows.lengths - 1)

    def _training(self, chosen: IntArray) -> Ragged:
        """Training items of the chosen ones among the users that are trained on."""
        users = self._users[chosen]
        starts = self._sequences.offsets[users]
        return self._sequences.spans(starts, starts + self._train_end[users])

    def _cut(self) -> tuple[IntArray, IntArray]:
        """Where each sequence of an epoch starts and ends among all items: one a user, or one a prefix."""
        starts = self._sequences.offsets[self._users]
        lengths = self._train_end[self._users]
        if not self._config.next_item.prefixes:
            return starts, starts + lengths
        prefixes = lengths - 1
        # The first prefix of a user ends two items after her start, each one after it an item later.
        first_ends = starts + 2 - (np.cumsum(prefixes) - prefixes)
        ends = np.repeat(first_ends, prefixes) + np.arange(prefixes.sum())
        return np.maximum(np.repeat(starts, prefixes), ends - self._config.encoder.window - 1), ends

    def spans(self) -> Spans:
        """Return the sequences of an epoch as spans of all items."""
        owners = self._owners(np.arange(len(self._ends)))
        return Spans(items=self._sequences.values, starts=self._starts, ends=self._ends, owners=owners)

    @cached_property
    def _sampler(self) -> NegativeSampler:
        """What draws here; steps that a device assembles draw there."""
        return self.sampler()

    def sampler(self, device: torch.device = _CPU) -> NegativeSampler:
        """Return what draws the negatives that a step's positions share."""
        counts = np.zeros(self._num_items + 1, np.int64)
        for part in np.array_split(np.arange(self.num_users), -(-self.num_users // _USERS_AT_ONCE)):
            counts += np.bincount(self._training(part).values, minlength=len(counts))
        settings = self._config.next_item
        return NegativeSampler(torch.from_numpy(counts[1:]).to(device), settings.samples, settings.exponent)

    def unseen_items(self, users: IntArray | None = None, device: torch.device = _CPU) -> UnseenItems:
        """Return what draws items that users have not interacted with in training; all users by default."""
        known = self._training(np.arange(self.num_users) if users is None else users)
        items, owners = (part.to(device) for part in (_tensor(known), torch.from_numpy(known.owners)))
        return UnseenItems(items, owners, len(known), self._num_items)

    def epoch(self, generator: torch.Generator, device: torch.device) -> Iterator[TrainingBatch]:
        """Draw an epoch: sequences in random order, fresh negatives and views.

        All ranks draw the same and take their share of every step.
        """
        order = torch.randperm(len(self._ends), generator=generator).numpy()
        order = order[: self.num_sequences]
        chunk = _CHUNK_STEPS * self._config.batch_size
        for start in range(0, len(order), chunk):
            yield from self._assemble(order[start : start + chunk], generator, device)

    def _assemble(self, chosen: IntArray, generator: torch.Generator, device: torch.device) -> Iterator[TrainingBatch]:
        """Make the steps of a chunk of sequences."""
        rows = self._sequences.spans(self._starts[chosen], self._ends[chosen])
        recent = rows.tail(self._config.encoder.window + 1)
        inputs, ends = recent.head(recent.lengths - 1), recent.offsets[1:]
        targets = recent.spans(ends - 1 if self._config.next_item.prefixes else recent.offsets[:-1] + 1, ends)
        views = self._views(rows, generator) if contrastive(self._config) else None
        window, asked, filled = self._config.encoder.window, targets.lengths, fills_windows(self._config)
        if filled:
            inputs, views = inputs.filled(window), views and views.filled(window)
            targets = targets if self._config.next_item.prefixes else targets.filled(window)
        pieces = _Pieces(inputs, views, window if pools_padding(self._config) else None, filled=filled)
        size, ranks = self._config.batch_size, self._ranks
        steps = [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        mine = [step[ranks.index :: ranks.count] for step in steps]
        counts = [int(targets.lengths[step].sum()) for step in mine]
        nothing = [None] * len(steps)
        parts = zip(
            pieces.group([pieces.encoded(step) for step in mine], device),
            torch.split(to_device(_tensor(targets.take(np.concatenate(mine))), device), counts),
            self._negatives(chosen, targets, mine, counts, generator, device),
            nothing if views is None else pieces.group([pieces.views(step) for step in steps], device),
            nothing if ranks.count == 1 else [pieces.exchange(step, ranks, device) for step in steps],
            strict=True,
        )
        for step, own, (encoded, positives_M, negatives, compared, exchange) in zip(steps, mine, parts, strict=True):
            yield TrainingBatch(
                rows=encoded,
                num_sequences=len(step),
                # No loss knows an item 0; it stands where nothing is asked.
                positives_M=positives_M.clamp(min=1) if filled else positives_M,
                weights_M=(positives_M != PADDING).float() if filled else None,
                negatives=negatives,
                share=ranks.count * int(asked[own].sum()) / int(asked[step].sum()),
                views=compared,
                exchange=exchange,
            )

    def _negatives(
        self,
        chosen: IntArray,
        targets: Ragged,
        mine: Sequence[IntArray],
        counts: list[int],
        generator: torch.Generator,
        device: torch.device,
    ) -> Sequence[Negatives | None]:
        """What each step's next items are told apart from."""
        if self._config.next_item.loss == "softmax":
            return [None] * len(mine)
        if self._config.next_item.loss == "sampled_softmax":
            draws = [[to_device(part, device) for part in self._sampler.draw(generator)] for _ in mine]
            return [Negatives(items=items_S, log_counts=log_counts_S) for items_S, log_counts_S in draws]
        drawn = self._draw_unseen(chosen, targets, generator)
        items_M = to_device(_tensor(drawn.take(np.concatenate(mine))), device)
        return [Negatives(items=part, log_counts=None) for part in torch.split(items_M, counts)]

    def _draw_unseen(self, chosen: IntArray, targets: Ragged, generator: torch.Generator) -> Ragged:
        """Draw an item for each target that its user has not interacted with in training."""
        users, row = np.unique(self._owners(chosen), return_inverse=True)
        rows = torch.from_numpy(np.repeat(row, targets.lengths))
        drawn_M = self.unseen_items(users).draw(rows, generator)
        return Ragged(values=drawn_M.numpy(), offsets=targets.offsets)

    def _owners(self, chosen: IntArray) -> IntArray:
        """Place of each sequence's user among the users that are trained on."""
        row_ends = self._sequences.offsets[self._users + 1]
        return np.searchsorted(row_ends, self._ends[chosen])

    def _views(self, rows: Ragged, generator: torch.Generator) -> Ragged:
        """Two views of every input: the first views of all users, then the second."""
        inputs = rows.head(rows.lengths - 1)
        both = Ragged.of(np.tile(inputs.values, 2), np.tile(inputs.lengths, 2))
        owners, starts = both.owners, both.offsets[:-1]
        plan = ViewPlan.draw(torch.from_numpy(both.lengths), self._config.views, generator)
        places = torch.from_numpy(np.arange(len(owners)) - starts[owners])
        viewed = apply_plan(plan, _tensor(both), torch.from_numpy(owners), places, generator)
        first, kept = (part.numpy() for part in plan.spans(self._config.encoder.window))
        return Ragged(values=viewed.numpy(), offsets=both.offsets).spans(starts + first, starts + first + kept)


class _Pieces:
    """All rows of a chunk, one after another: U inputs, then 2 U views, then one window of padding, if wanted."""

    def __init__(self, inputs: Ragged, views: Ragged | None, window: int | None, *, filled: bool) -> None:
        padding = [] if window is None else [Ragged.of(np.zeros(window, np.int64), [window])]
        parts = [inputs, *([] if views is None else [views]), *padding]
        values = np.concatenate([part.values for part in parts])
        self._rows = Ragged.of(values, np.concatenate([part.lengths for part in parts]))
        self._firsts = [0] if views is None else [0, len(inputs), 2 * len(inputs)]
        self._padding = [] if window is None else [len(self._rows) - 1]
        self._filled = filled

    def encoded(self, users: IntArray) -> IntArray:
        """Rows of what is encoded for these users: their inputs, first views, second views, and the padding."""
        return np.concatenate([*(first + users for first in self._firsts), self._padding]).astype(np.int64)

    def views(self, users: IntArray) -> IntArray:
        """Rows of these users' views: first views, then second views."""
        return np.concatenate([first + users for first in self._firsts[1:]])

    def group(self, steps: list[IntArray], device: torch.device) -> list[GroupedBatch]:
        """Lay the named rows of each step out for the encoder."""
        taken, counts = self._rows.take(np.concatenate(steps)), [len(step) for step in steps]
        return group_steps(_tensor(taken), torch.from_numpy(taken.lengths), counts, device, sees_all=self._filled)

    def exchange(self, users: IntArray, ranks: Ranks, device: torch.device) -> Exchange:
        """Say where the items of all ranks' rows lie once their states are gathered."""
        lengths, bare = self._rows.lengths, -1 if self._padding else None
        shares = [self.encoded(users[rank :: ranks.count])[:bare] for rank in range(ranks.count)]
        longest = max(int(lengths[share].sum()) for share in shares)
        starts = np.empty(len(lengths), np.int64)
        for rank, share in enumerate(shares):
            starts[share] = rank * longest + np.cumsum(lengths[share]) - lengths[share]
        every = self.encoded(users)[:bare]
        rows = Rows.of(torch.from_numpy(lengths[every]), device)
        source_M = np.repeat(starts[every] - np.cumsum(lengths[every]) + lengths[every], lengths[every])
        source_M += np.arange(len(source_M))
        return Exchange(rows=rows, source_M=to_device(torch.from_numpy(source_M), device), longest=longest)


def contrastive(config: TrainConfig) -> bool:
    """Whether the objective compares views."""
    weights = config.intents
    return config.has_intents and bool(weights.sequence_weight or weights.intent_weight)


def _tensor(rows: Ragged) -> Tensor:
    return torch.from_numpy(rows.values.astype(np.int64, copy=False))
