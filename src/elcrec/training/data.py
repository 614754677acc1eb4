"""The training data: users, their training items, and the sequences cut from them.

Axes: `S` sequences of an epoch.
"""

import math

import numpy as np
import torch

from elcrec.config import TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import IntArray, Ragged
from elcrec.errors import UserError
from elcrec.model.layout import CPU
from elcrec.ops.negatives import NegativeSampler, UnseenItems
from elcrec.training.distributed import ALONE, Ranks

MOST_USERS = 1_000_000
"""Users whose histories tell which items belong together; more would take memory and time and hardly change it."""
_MOST_ITEMS = 50_000_000
"""Items of these histories together, for the same reason."""
_USERS_AT_ONCE = 65_536
_WINDOWS_OF_A_SEQUENCE = 20
"""Windows that a sequence fills at most: views are drawn from all of it, and each has room for the longest."""


class TrainingData:
    """The training part of all sequences.

    Attributes:
        items: item indices of all users, one after another, including held-out ones.
        starts_S: start of each sequence among them.
        ends_S: one past the last item of each sequence.
        weights: weight of each item as a target; `None` if all are equal.
        repeats: whether an item that a user has already met may be their next item.
        num_items: number of items (V).
        num_users: number of users in training.
        num_sequences: number of sequences in an epoch, without a last step that has nothing to contrast or leaves a
            rank without a sequence.
        num_steps: number of steps in an epoch.
    """

    def __init__(self, data: SequenceData, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        """Keep the users with at least two training items: one to read, one to predict.

        Raises:
            UserError: there are too few such users to train on, or fewer than intents.
        """
        users = np.flatnonzero(data.train_end > 1)
        if len(users) < max(2, ranks.count):
            raise UserError(f"{len(users)} users have two or more training items", fix="bring a longer log")
        if config.model.intents != "items" and len(users) < config.model.num_intents:
            what = f"{len(users)} users for {config.model.num_intents} intents"
            raise UserError(what, fix="lower train.intents.num_intents")
        self._config, self.num_items = config, data.num_items
        self.weights, self.repeats = data.weights, data.repeats
        self._sequences, self._users, self._train_end = data.sequences, users, data.train_end
        self.items, self.num_users = data.sequences.values, len(users)
        self.starts_S, self.ends_S = self._cut()
        rest = len(self.ends_S) % config.batch_size
        self.num_sequences = len(self.ends_S) - (rest if rest < max(2, ranks.count) else 0)
        self.num_steps = math.ceil(self.num_sequences / config.batch_size)

    def _cut(self) -> tuple[IntArray, IntArray]:
        """Return where each sequence of an epoch starts and ends among all items: one per user, or one per prefix."""
        starts, lengths = self._sequences.offsets[self._users], self._train_end[self._users]
        if not self._config.next_item.prefixes:
            ends = starts + lengths
            return np.maximum(starts, ends - 1 - _WINDOWS_OF_A_SEQUENCE * self._config.encoder.window), ends
        prefixes = lengths - 1
        # The first prefix of a user ends after two items, each further one after one more.
        first_ends = starts + 2 - (np.cumsum(prefixes) - prefixes)
        ends = np.repeat(first_ends, prefixes) + np.arange(prefixes.sum())
        return np.maximum(np.repeat(starts, prefixes), ends - self._config.encoder.window - 1), ends

    def sample(self, most: int, generator: torch.Generator, most_items: int = _MOST_ITEMS) -> Ragged:
        """Return the training items of a sample of at most `most` users, of at most `most_items` or of one user."""
        lengths = self._train_end[self._users]
        if self.num_users <= most and lengths.sum(dtype=np.int64) <= most_items:
            return self._training(np.arange(self.num_users))
        drawn = torch.randperm(self.num_users, generator=generator)[:most].numpy()
        together = np.cumsum(lengths[drawn], dtype=np.int64)
        return self._training(np.sort(drawn[together <= max(most_items, together[0])]))

    def owners(self, ends: IntArray) -> IntArray:
        """Return the users, as positions among those in training, whose sequences end at the given places."""
        return np.searchsorted(self._sequences.offsets[self._users + 1], ends)

    def sampler(self, device: torch.device = CPU) -> NegativeSampler:
        """Return the sampler of negatives that a step's targets share."""
        counts = np.zeros(self.num_items + 1, np.int64)
        for part in np.array_split(np.arange(self.num_users), -(-self.num_users // _USERS_AT_ONCE)):
            counts += np.bincount(self._training(part).values, minlength=len(counts))
        settings = self._config.next_item
        return NegativeSampler(torch.from_numpy(counts[1:]).to(device), settings.samples, settings.exponent)

    def unseen_items(self, users: IntArray, device: torch.device = CPU) -> UnseenItems:
        """Return the sampler of items that these users have not seen in training."""
        known = self._training(users)
        items, owners = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (known.values, known.owners))
        return UnseenItems(items, owners, len(known), self.num_items)

    def _training(self, chosen: IntArray) -> Ragged:
        """Return the training items of the chosen users, given as positions among those in training."""
        users = self._users[chosen]
        starts = self._sequences.offsets[users]
        return self._sequences.spans(starts, starts + self._train_end[users])
