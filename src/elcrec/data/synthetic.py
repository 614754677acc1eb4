"""Synthetic logs with planted intents, so that a model's intents can be compared with the truth.

Axes: `U` users, `V` items, `K` intents, `S` items of an intent, `T` steps.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.config import SyntheticConfig

START = np.datetime64("2026-01-01T00:00:00", "s")
"""Time of the first possible event; all events are within the following 180 days."""
FEWEST_EVENTS = 5
SUCCESSOR_SHARES = (0.6, 0.3, 0.1)
"""Probabilities of an item's successors when one of them comes next."""

_DAY = 86_400
_LAST_ARRIVAL_DAYS = 120
_ACTIVE_DAYS = (5, 60)
_REDRAWS = 10

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SyntheticLog:
    """A log and the truth behind it.

    Attributes:
        log: `user_id`, `item_id` string, `timestamp` ISO 8601 text in UTC, in time order.
        items: `item_id`, `intent` int32, all items.
        users: `user_id`, `intents` list<int32>, ascending.
    """

    log: pa.Table
    items: pa.Table
    users: pa.Table


@dataclass(frozen=True, kw_only=True)
class _World:
    """The items: numbered intent by intent, the most popular of an intent first.

    Attributes:
        first_item: first item of each intent, and the end of the last, [K + 1].
        intent: intent of each item, [V].
        cumulative: cumulative popularity inside the intent, [V].
        successors: the preferred successors of each item, [V, len(SUCCESSOR_SHARES)].
        names: raw id of each item, unrelated to its number, [V].
    """

    first_item: Ints
    intent: Ints
    cumulative: Floats
    successors: Ints
    names: npt.NDArray[np.str_]


def generate(config: SyntheticConfig) -> SyntheticLog:
    """Draw a log. The same configuration gives the same log."""
    random = np.random.default_rng(config.seed)
    world = _draw_world(config, random)
    held_UK = _draw_intents(config, random)
    lengths = FEWEST_EVENTS + random.geometric(1 / (config.mean_length - FEWEST_EVENTS + 1), config.users) - 1
    items_UT = _walk(config, world, held_UK, lengths, random)
    seconds_UT = _draw_times(lengths, random)
    present = np.arange(items_UT.shape[1]) < lengths[:, None]
    users = np.repeat(np.arange(config.users), lengths)
    user_names = _names("u", config.users)
    return SyntheticLog(
        log=_log(user_names[users], world.names[items_UT[present]], seconds_UT[present]),
        items=_sorted_items(world),
        users=_user_truth(user_names, held_UK),
    )


def _draw_world(config: SyntheticConfig, random: np.random.Generator) -> _World:
    first_item = np.linspace(0, config.items, config.intents + 1).round().astype(np.int64)
    sizes = np.diff(first_item)
    rank = np.arange(config.items) - np.repeat(first_item[:-1], sizes)
    weight: Floats = np.power(rank + 1.0, -config.popularity_exponent)
    parts = [slice(first, end) for first, end in pairwise(first_item)]
    return _World(
        first_item=first_item,
        intent=np.repeat(np.arange(config.intents), sizes),
        cumulative=np.concatenate([np.cumsum(weight[part]) / weight[part].sum() for part in parts]),
        successors=np.concatenate([_draw_successors(weight[part], part.start, random) for part in parts]),
        names=random.permutation(_names("i", config.items)),
    )


def _draw_successors(weight: Floats, first: int, random: np.random.Generator) -> Ints:
    """Draw the successors of each item of an intent: distinct items, popular ones more often, [S, 3]."""
    size = len(weight)
    score = np.log(weight) + random.gumbel(size=(size, size))  # sorted, this draws without replacement
    np.fill_diagonal(score, -np.inf)
    columns = np.minimum(np.arange(len(SUCCESSOR_SHARES)), max(0, size - 2))
    successors: Ints = first + score.argsort(axis=1)[:, ::-1][:, columns]
    return successors


def _draw_intents(config: SyntheticConfig, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw the intents of each user, [U, K]."""
    most = min(config.intents_per_user, config.intents)
    count = random.integers(1, most + 1, config.users)
    order = random.random((config.users, config.intents)).argsort(axis=1).argsort(axis=1)
    return order < count[:, None]


def _walk(
    config: SyntheticConfig,
    world: _World,
    held_UK: npt.NDArray[np.bool_],
    lengths: Ints,
    random: np.random.Generator,
) -> Ints:
    """Draw the items of all users, step by step, [U, T]; values beyond a user's length are meaningless.

    A user rarely meets an item twice. After a noise item, the walk continues from the item before it.
    """
    items_UT = np.empty((config.users, lengths.max()), np.int64)
    intent = _other_intent(held_UK, np.full(config.users, -1), random)
    anchor = _popular_item(world, intent, random)
    items_UT[:, 0] = anchor
    for step in range(1, items_UT.shape[1]):
        active = np.flatnonzero(lengths > step)
        switching = active[random.random(len(active)) < config.switch]
        intent[switching] = _other_intent(held_UK[switching], intent[switching], random)
        pending = active
        for _ in range(_REDRAWS):
            items_UT[pending, step] = _next_item(config, world, anchor[pending], intent[pending], random)
            seen = (items_UT[pending, :step] == items_UT[pending, step, None]).any(axis=1)
            pending = pending[seen]
        noisy = random.random(len(active)) < config.noise
        anchor[active[~noisy]] = items_UT[active[~noisy], step]
        items_UT[active[noisy], step] = random.integers(0, config.items, noisy.sum())
    return items_UT


def _other_intent(held_UK: npt.NDArray[np.bool_], current: Ints, random: np.random.Generator) -> Ints:
    """Draw one of each user's intents, different from the current one if they have several."""
    score = np.where(held_UK, random.random(held_UK.shape), -1.0)
    rows = np.flatnonzero(current >= 0)
    score[rows, current[rows]] = -0.5  # ranked after their other intents, before those that they do not have
    chosen: Ints = score.argmax(axis=1)
    return chosen


def _next_item(config: SyntheticConfig, world: _World, anchor: Ints, intent: Ints, random: np.random.Generator) -> Ints:
    follows = (random.random(len(anchor)) < config.follow) & (world.intent[anchor] == intent)
    which = np.searchsorted(np.cumsum(SUCCESSOR_SHARES), random.random(len(anchor)))
    successor = world.successors[anchor, np.minimum(which, len(SUCCESSOR_SHARES) - 1)]
    return np.where(follows, successor, _popular_item(world, intent, random))


def _popular_item(world: _World, intent: Ints, random: np.random.Generator) -> Ints:
    """Draw an item of each intent by popularity; the intents are laid out on one axis of length K."""
    goal = intent + random.random(len(intent))
    place: Ints = np.searchsorted(world.intent + world.cumulative, goal, side="right")
    last: Ints = world.first_item[intent + 1] - 1  # rounding may have led one item too far
    item: Ints = np.minimum(place, last)
    return item


def _draw_times(lengths: Ints, random: np.random.Generator) -> Ints:
    """Draw seconds after START, increasing within a user, [U, T]."""
    arrival = random.uniform(0, _LAST_ARRIVAL_DAYS * _DAY, len(lengths))
    active = random.uniform(_ACTIVE_DAYS[0] * _DAY, _ACTIVE_DAYS[1] * _DAY - lengths.max(), len(lengths))
    moments = random.random((len(lengths), lengths.max()))
    moments[np.arange(lengths.max()) >= lengths[:, None]] = 1.0
    within = np.sort(moments, axis=1) * active[:, None]
    return (arrival[:, None] + within).astype(np.int64) + np.arange(lengths.max())


def _names(prefix: str, count: int) -> npt.NDArray[np.str_]:
    width = max(4, len(str(count)))
    return np.char.add(prefix, np.char.zfill(np.arange(1, count + 1).astype(str), width))


def _log(users: npt.NDArray[np.str_], items: npt.NDArray[np.str_], seconds: Ints) -> pa.Table:
    order = np.argsort(seconds, kind="stable")
    moments = np.char.add(np.datetime_as_string(START + seconds[order], unit="s"), "Z")
    return pa.table({"user_id": users[order], "item_id": items[order], "timestamp": moments})


def _sorted_items(world: _World) -> pa.Table:
    order = np.argsort(world.names)
    return pa.table({"item_id": world.names[order], "intent": pa.array(world.intent[order], pa.int32())})


def _user_truth(names: npt.NDArray[np.str_], held_UK: npt.NDArray[np.bool_]) -> pa.Table:
    offsets = np.concatenate(([0], np.cumsum(held_UK.sum(axis=1)))).astype(np.int32)
    intents = pa.ListArray.from_arrays(offsets, pa.array(np.nonzero(held_UK)[1], pa.int32()))
    return pa.table({"user_id": names, "intents": intents})
