"""A seeded world with recommendations on each day: tables in the form of `elcrec exposures`.

Users have persistent tastes and click rates, come again, leave and are replaced. Days differ by the day of the week in
traffic and tastes, and by chance in tastes and click rates. From any day on, intents, click rates, the share of new
users and the lengths of known histories can drift.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.monitoring.attribution import ATTRIBUTED_SCHEMA

DIGEST = "0123456789abcdef" * 4
FIRST = 20_514
"""The first day, 2026-03-02, a Monday, in days since 1970."""
DAY = 86_400_000_000
ITEMS_AN_INTENT, SHOWN = 40, 10

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The differences from an unchanged day.

    Attributes:
        clicks: factor of every click rate.
        moved: share of the users whose taste becomes that of `to`.
        to: an intent.
        cold: share of the users who are replaced by new ones, beside those who always are.
        lengths: factor of the length of every known history.
    """

    clicks: float = 1.0
    moved: float = 0.0
    to: int = 5
    cold: float = 0.0
    lengths: float = 1.0


UNDISTURBED = Drift()


@dataclass(kw_only=True)
class World:
    """Users with tastes.

    Attributes:
        users: how many there are at a time; about a quarter of them come on a day.
        weekend: how much more some intents are wanted on Saturdays and Sundays.
        noise: standard deviation of a day's own effect on tastes and click rates, in logarithms.
    """

    seed: int
    users: int = 3000
    intents: int = 12
    weekend: float = 0.3
    noise: float = 0.03
    digest: str = DIGEST
    day: int = 0
    _known: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Draw the users."""
        self.rng, self.length_rng = np.random.default_rng(self.seed), np.random.default_rng([self.seed, 1])
        self.popular = 1 / np.arange(1, self.intents + 1) ** 0.6
        self.weights = np.log(1 / np.arange(1, ITEMS_AN_INTENT + 1) ** 0.8)
        self.key = np.zeros(self.users, np.int64)
        self.taste, self.clicking = np.zeros((self.users, self.intents)), np.zeros(self.users)
        self.activity, self.since = np.zeros(self.users), np.zeros(self.users, np.int64)
        self.length = np.zeros(self.users)
        self._replace(np.arange(self.users), known=True)

    def days(self, number: int, drift: Drift = UNDISTURBED) -> Iterator[pa.Table]:
        """Yield the tables of the next days; a drift that moves users moves them on the first of them."""
        moved = self.rng.random(self.users) < drift.moved
        self.taste[moved] = self._tastes(np.full(int(moved.sum()), drift.to))
        for _ in range(number):
            gone = np.flatnonzero(self.rng.random(self.users) < 0.015 + drift.cold)
            self._replace(gone, known=False)
            yield self._table(drift)
            self.day += 1

    def _replace(self, places: Ints, *, known: bool) -> None:
        rng, number = self.rng, len(places)
        self.key[places] = self._known + np.arange(number)
        self._known += number
        self.taste[places] = self._tastes(rng.choice(self.intents, number, p=self.popular / self.popular.sum()))
        self.clicking[places] = rng.beta(2, 18, number)
        self.activity[places] = rng.gamma(1.0, 0.3, number)
        self.length[places] = self.length_rng.lognormal(2.0, 0.8, number)
        self.since[places] = self.day - (99 if known else 0)

    def _tastes(self, main: Ints) -> Floats:
        share = self.popular / self.popular.sum()
        return 0.7 * np.eye(self.intents)[main] + 0.3 * share

    def _table(self, drift: Drift) -> pa.Table:
        rng, weekend = self.rng, self.day % 7 >= 5
        who = np.repeat(np.arange(self.users), rng.poisson(self.activity * (1.3 if weekend else 1.0)))
        wanted = np.exp(rng.normal(0, self.noise, self.intents)) * (
            1 + self.weekend * weekend * (np.arange(self.intents) % 3 == 0)
        )
        cumulated = (self.taste[who] * wanted).cumsum(axis=1)
        draws = rng.random((len(who), 1)) * cumulated[:, -1:]
        intent = (draws > cumulated).sum(axis=1)
        noisy = self.weights + rng.gumbel(size=(len(who), ITEMS_AN_INTENT))
        items = np.argsort(-noisy, axis=1)[:, :SHOWN] + intent[:, None] * ITEMS_AN_INTENT
        score = np.sort(rng.normal(1, 0.5, (len(who), SHOWN)), axis=1)[:, ::-1]
        effect = np.exp(rng.normal(0, self.noise)) * drift.clicks
        clicked = rng.random(score.shape) < np.clip(self.clicking[who, None] * np.exp(0.6 * (score - 1)) * effect, 0, 1)
        return self._rows(who, intent, items, score, clicked, self._known_items(who, drift))

    def _known_items(self, who: Ints, drift: Drift) -> Ints:
        """Lengths of the known histories of answers: each user's own, which days and answers differ a little from."""
        rng = self.length_rng
        mean = self.length[who] * np.exp(rng.normal(0, self.noise)) * drift.lengths
        return np.clip(rng.poisson(mean), 1, 50)

    def _rows(
        self, who: Ints, intent: Ints, items: Ints, score: Floats, clicked: npt.NDArray[np.bool_], known: Ints
    ) -> pa.Table:
        rng, answers = self.rng, len(who)
        each, flat = np.repeat(np.arange(answers), SHOWN), np.arange(answers * SHOWN)
        moment = np.sort(rng.integers(0, DAY, answers)) + (FIRST + self.day) * DAY
        anonymous, cold = rng.random(answers) < 0.02, self.since[who] > self.day - 3
        followed = clicked.any(axis=1) | (rng.random(answers) < 0.4)
        is_next = np.zeros(clicked.shape, bool)
        hit = clicked.any(axis=1) & (rng.random(answers) < 0.7)
        is_next[hit, clicked.argmax(axis=1)[hit]] = True
        later = (moment + 60_000_000)[each]
        nothing = pa.nulls(len(flat))
        columns = {
            "answer_id": pa.array([f"{self.day}-{number}" for number in range(answers)]).take(pa.array(each)),
            "time": pa.array(moment[each], pa.timestamp("us", "UTC")),
            "user_key": pa.array([f"u{key}" for key in self.key[who]], mask=anonymous).take(pa.array(each)),
            "position": flat % SHOWN + 1,
            "item_id": pa.array([f"i{item}" for item in range(self.intents * ITEMS_AN_INTENT)]).take(items.ravel()),
            "score": score.ravel(),
            "propensity": np.ones(len(flat)),
            "intent": pa.array(intent[each], mask=cold[each]),
            "policy": pa.array(["model", "popular"]).take(cold[each].astype(np.int64)),
            "known": np.where(cold, 0, known)[each],
            "model": pa.array(["elcrec"]).take(each * 0),
            "version": pa.array(["1"]).take(each * 0),
            "digest": pa.array([self.digest]).take(each * 0),
            "events": clicked.ravel().astype(np.int64),
            "event_time": pa.array(later, pa.timestamp("us", "UTC"), mask=~clicked.ravel()),
            "found_by": nothing,
            "next_time": pa.array(later, pa.timestamp("us", "UTC"), mask=~followed[each]),
            "is_next": is_next.ravel(),
            "arm": nothing,
        }
        return pa.table([pa.array(columns[f.name]).cast(f.type) for f in ATTRIBUTED_SCHEMA], schema=ATTRIBUTED_SCHEMA)


def two_arms(
    days: int, digests: Mapping[str, str], *, lift: float = 0.0, users: int = 1500, seed: int = 0
) -> Iterator[pa.Table]:
    """Yield days of a test: other users in each arm, and more clicks in the challenger's.

    Args:
        days: how many.
        digests: of the bundle of each arm.
        lift: relative rise of the click rates of the challenger's users.
        users: of each arm.
        seed: draws the users.
    """
    worlds = {
        arm: World(seed=2 * seed + place, users=users, digest=digests[arm]).days(
            days, Drift(clicks=1 + lift * (arm == "challenger"))
        )
        for place, arm in enumerate(("champion", "challenger"))
    }
    for tables in zip(*worlds.values(), strict=True):
        yield pa.concat_tables([_of_arm(table, arm) for arm, table in zip(worlds, tables, strict=True)])


def _of_arm(table: pa.Table, arm: str) -> pa.Table:
    """Name the users and answers after their arm; who has no key is in no test."""
    known = pc.is_valid(table["user_key"])
    columns = {
        "answer_id": pc.binary_join_element_wise(table["answer_id"], arm, "-"),
        "user_key": pc.binary_join_element_wise(table["user_key"], arm, "-"),
        "arm": pc.if_else(known, arm, None),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table
