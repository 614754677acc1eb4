"""Steps of an epoch as tensors: sequences, next items, drawn negatives and views, without a loop over users.

Axes: `B` users of a step, `M` items of their sequences one after another, `N` flat positions of a grouped batch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.elcrec import TrainingBatch, pools_padding
from elcrec.model.grouping import group_rows
from elcrec.model.views import augment

_REDRAWS = 8


class TrainingData:
    """The training part of all sequences, cut into steps."""

    def __init__(self, data: SequenceData, config: TrainConfig) -> None:
        """Keep the users who have at least two training items: one to read, one to predict.

        Raises:
            UserError: there are too few such users to train on.
        """
        training = data.training()
        users = np.flatnonzero(training.lengths > 1)
        if len(users) < 2:  # noqa: PLR2004 - a contrast needs two
            raise UserError(f"{len(users)} users have two or more training items", fix="bring a longer log")
        self._config = config
        self._rows = training.take(users)
        self._num_items = data.num_items
        window = config.encoder.window
        empty = (torch.zeros(window, dtype=torch.int64), torch.tensor([window]))
        self._padding = [empty] if pools_padding(config) else []
        self._known = _sorted_pairs(self._rows, data.num_items)

    def __len__(self) -> int:
        """Steps in an epoch; a last step of a single user is dropped, as it has nothing to contrast."""
        steps, rest = divmod(len(self._rows), self._config.batch_size)
        return steps + (rest > 1)

    @property
    def num_users(self) -> int:
        """Users that are trained on."""
        return len(self._rows)

    def inputs(self) -> Ragged:
        """What the encoder reads of each user: the training items but the last."""
        return self._rows.head(self._rows.lengths - 1)

    def epoch(self, generator: torch.Generator) -> Iterator[TrainingBatch]:
        """Draw an epoch: users in random order, fresh negatives and views."""
        order = torch.randperm(len(self._rows), generator=generator).numpy()
        for step in range(len(self)):
            users = order[step * self._config.batch_size : (step + 1) * self._config.batch_size]
            yield self._step(users, generator)

    def _step(self, users: np.ndarray, generator: torch.Generator) -> TrainingBatch:
        rows = self._rows.take(users)
        recent = rows.tail(self._config.encoder.window + 1)
        lengths_B = torch.from_numpy(recent.lengths) - 1
        inputs_M = _tensor(recent.head(lengths_B.numpy()))
        targets_M = _tensor(recent.spans(recent.offsets[:-1] + 1, recent.offsets[1:]))
        owners_M = torch.repeat_interleave(torch.from_numpy(users), lengths_B)
        views = [self._views(rows, generator)] if contrastive(self._config) else []
        items, lengths = zip((inputs_M, lengths_B), *views, *self._padding, strict=True)
        return TrainingBatch(
            rows=group_rows(torch.cat(items), torch.cat(lengths)),
            num_users=len(users),
            positives_M=targets_M,
            negatives_M=self._draw_negatives(owners_M, generator),
            views=group_rows(*views[0]) if views else None,
        )

    def _draw_negatives(self, owners_M: Tensor, generator: torch.Generator) -> Tensor:
        """Draw items uniformly, again where one stands in its owner's training sequence.

        A few rounds leave next to no collision, and none can hang on a user who has seen the whole catalogue.
        """
        shape = owners_M.shape
        drawn_M = torch.randint(1, self._num_items + 1, shape, generator=generator)
        for _ in range(_REDRAWS):
            clash_M = self._is_known(owners_M, drawn_M)
            if not clash_M.any():
                break
            drawn_M[clash_M] = torch.randint(1, self._num_items + 1, (int(clash_M.sum()),), generator=generator)
        return drawn_M

    def _is_known(self, owners_M: Tensor, items_M: Tensor) -> Tensor:
        keys_M = owners_M * (self._num_items + 1) + items_M
        place_M = torch.searchsorted(self._known, keys_M).clamp(max=len(self._known) - 1)
        return self._known[place_M] == keys_M

    def _views(self, rows: Ragged, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views of every input: the first views of all users, then the second; their items and lengths."""
        inputs = rows.head(rows.lengths - 1)
        items_2M = _tensor(inputs).repeat(2)
        lengths_2B = torch.from_numpy(inputs.lengths).repeat(2)
        viewed, kept_2B = augment(items_2M, lengths_2B, self._config.views, generator)
        offsets = np.concatenate(([0], kept_2B.cumsum(0).numpy()))
        tails = Ragged(values=viewed.numpy(), offsets=offsets).tail(self._config.encoder.window)
        return _tensor(tails), torch.from_numpy(tails.lengths)


def contrastive(config: TrainConfig) -> bool:
    """Whether the objective compares views."""
    weights = config.intents
    return config.objective != "sasrec" and bool(weights.sequence_weight or weights.intent_weight)


def _sorted_pairs(rows: Ragged, num_items: int) -> Tensor:
    """Every (user, item) of the rows as one sorted number, to look membership up."""
    owners = np.repeat(np.arange(len(rows)), rows.lengths)
    return torch.from_numpy(np.unique(owners * (num_items + 1) + rows.values))


def _tensor(rows: Ragged) -> Tensor:
    return torch.from_numpy(rows.values.astype(np.int64))
