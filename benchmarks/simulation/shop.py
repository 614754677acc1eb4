"""A simulated shop whose users have planted intents: their clicks, their own finds, and the drift of their tastes.

Axes: `U` users, `V` items, `K` intents, `S` items of an intent, `P` places of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FIRST_DAY = datetime(2025, 6, 2, tzinfo=UTC)
"""The first simulated day, a Monday; the shop's log begins before it."""
_DAY = timedelta(days=1)
_OPENS, _OPEN_SECONDS = timedelta(hours=7), 16 * 3600

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Habits:
    """The parameters of the users' behaviour.

    Attributes:
        users: number of users.
        common: number of intents that users have before the drift.
        rare: number of intents that almost no user has before the drift.
        items_an_intent: number of items of each intent.
        visits: chance of a user to visit on a day.
        found: mean number of events per visit that do not follow from an answer.
        wanted: chance of a click on an item of one of the user's intents, if the user looks at it.
        chance: chance of a click on any other item.
        noise: share of found events with a random item.
        days_before: number of days in the log before the first simulated day.
        visits_before: chance of a user to visit on each of these days.
        turned: share of the users whose intents become rare ones by the drift.
    """

    users: int = 8000
    common: int = 8
    rare: int = 4
    items_an_intent: int = 25
    visits: float = 0.1
    found: float = 4.0
    wanted: float = 0.3
    chance: float = 0.01
    noise: float = 0.03
    days_before: int = 30
    visits_before: float = 0.04
    turned: float = 0.6


class Visit(NamedTuple):
    """A visit: a user and a time."""

    user: int
    moment: datetime


class Found(NamedTuple):
    """An event: its item, its time, and the answer that it follows, if any."""

    user_id: str
    item_id: str
    moment: datetime
    answer_id: str | None


class Shop:
    """The users and their tastes; the same seed gives the same days, independent of the recommender."""

    def __init__(self, habits: Habits, seed: int) -> None:
        """Draw the users' intents."""
        self.habits = habits
        self._random = np.random.default_rng(seed)
        count = habits.common + habits.rare
        self.intent_V = np.repeat(np.arange(count), habits.items_an_intent)
        names = np.char.add("i", np.char.zfill(np.arange(1, len(self.intent_V) + 1).astype(str), 4))
        self._names = self._random.permutation(names).tolist()
        self._index_of = {name: index for index, name in enumerate(self._names)}
        self._held_U2 = self._intents(habits.users, 0, habits.common)
        self._taste_V = self._random.uniform(0.5, 1.0, len(self.intent_V))

    def history(self) -> pa.Table:
        """Return the log before the first day: `user_id`, `item_id`, `timestamp`."""
        rows: list[Found] = []
        for day in range(-self.habits.days_before, 0):
            rows += [event for visit in self._visits(day, self.habits.visits_before) for event in self.find(visit)]
        rows.sort(key=lambda row: row.moment)
        times = pa.array([row.moment for row in rows], pa.timestamp("us", tz="UTC"))
        ids = {"user_id": [row.user_id for row in rows], "item_id": [row.item_id for row in rows]}
        return pa.table({**ids, "timestamp": times})

    def visits(self, day: int) -> list[Visit]:
        """Return the visits of a day (from 0) in order of time."""
        return self._visits(day, self.habits.visits)

    def drift(self) -> None:
        """Let some users switch to rare intents."""
        turned = self._random.random(self.habits.users) < self.habits.turned
        self._held_U2[turned] = self._intents(int(turned.sum()), self.habits.common, self.habits.rare)

    def click(self, visit: Visit, answer_id: str, item_ids: Sequence[str]) -> list[Found]:
        """Return the user's clicks on an answer: wanted items, if the user looks at their places."""
        items_P = np.array([self._index_of[item] for item in item_ids], np.int64)
        held_P = (self.intent_V[items_P, None] == self._held_U2[visit.user]).any(1)
        look_P = 1 / (1 + 0.1 * np.arange(len(item_ids)))
        chance_P = look_P * (self.habits.chance + self.habits.wanted * held_P * self._taste_V[items_P])
        clicked = np.flatnonzero(self._random.random(len(item_ids)) < chance_P)
        return [
            Found(
                user_name(visit.user),
                item_ids[int(place)],
                visit.moment + timedelta(seconds=5 * (number + 1)),
                answer_id,
            )
            for number, place in enumerate(clicked)
        ]

    def find(self, visit: Visit) -> list[Found]:
        """Return the user's finds without an answer, before their request."""
        number = self._random.poisson(self.habits.found)
        intents = self._random.choice(self._held_U2[visit.user], number)
        size = self.habits.items_an_intent
        chances = self._taste_V.reshape(-1, size)
        chances = chances / chances.sum(1, keepdims=True)
        items = [int(each * size + self._random.choice(size, p=chances[each])) for each in intents]
        noisy = self._random.random(number) < self.habits.noise
        anything = self._random.integers(0, len(self.intent_V), number)
        chosen = np.where(noisy, anything, items) if number else np.empty(0, np.int64)
        user_id, start = user_name(visit.user), visit.moment - timedelta(seconds=10 * number)
        return [
            Found(user_id, self._names[item], start + timedelta(seconds=10 * place), None)
            for place, item in enumerate(chosen.tolist())
        ]

    def intent_of(self, item_id: str) -> int:
        """Return the planted intent of an item."""
        return int(self.intent_V[self._index_of[item_id]])

    def _visits(self, day: int, share: float) -> list[Visit]:
        users = np.flatnonzero(self._random.random(self.habits.users) < share)
        opens, place = FIRST_DAY + day * _DAY + _OPENS, self._random.permutation(len(users))
        # No two at the same time, so that the order of ties does not matter.
        moments = place * (_OPEN_SECONDS / max(1, len(users)))
        visits = [
            Visit(int(user), opens + timedelta(microseconds=int(moment * 1e6) + int(user)))
            for user, moment in zip(users, moments, strict=True)
        ]
        return sorted(visits, key=lambda visit: visit.moment)

    def _intents(self, users: int, first: int, count: int) -> Ints:
        """Draw two different intents per user, [U, 2]."""
        one = self._random.integers(0, count, users)
        other = (one + self._random.integers(1, count, users)) % count
        return np.stack([one, other], 1) + first


def user_name(user: int) -> str:
    """Return a user's raw id."""
    return f"u{user:05d}"
