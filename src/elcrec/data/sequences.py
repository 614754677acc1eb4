"""From interactions to item sequences, in SQL: filter, index, cut; data/fold.py makes rows of the sorted events."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.interactions import TIE
from elcrec.data.times import DAY

_PRIME = 2**31 - 1
_KEYS = {"u": "user_id", "i": "item_id"}


class Core(NamedTuple):
    """The events that remain: how many, whether users and items are numbers, and their further columns."""

    events: int
    numbered: bool
    own: tuple[str, ...]


class Cuts(NamedTuple):
    """Instants of a temporal split, in microseconds."""

    valid: int
    test: int


def keep_core(session: Session, k: int, more: Collection[str] = ()) -> Core:
    """Make `core`: what remains of the view `log` once every user and item left has `k` events or more.

    It has `row`, `micros`, the columns that are named as `more`, and for user and item `u` and `i`: their ids, or where
    there is something to take out numbers, whose ids the tables `u_names` and `i_names` hold.
    """
    own = ", ".join(["row", "micros", *more])
    if k > 1:
        _number(session, own)
        _peel(session, k, own)
    else:
        session.view("core", f"SELECT {own}, user_id AS u, item_id AS i FROM log")
    return Core(events=_count(session, "core"), numbered=k > 1, own=tuple(more))


def _number(session: Session, own: str) -> None:
    """Make `core` with numbers, which are small to carry from turn to turn."""
    for key, name in _KEYS.items():
        session.table(f"{key}_names", f"SELECT {name} AS name, min(row) AS {key} FROM log GROUP BY {name}")
    numbered = f"""SELECT {own}, u_names.u AS u, i_names.i AS i
        FROM log JOIN u_names ON log.user_id = u_names.name JOIN i_names ON log.item_id = i_names.name"""
    session.table("core", numbered)


def _peel(session: Session, k: int, own: str) -> None:
    """Take rare users and items out of `core` until none is left."""
    while True:
        for key in _KEYS:
            session.table(f"rare_{key}", f"SELECT {key} FROM core GROUP BY {key} HAVING count(*) < {k}")
        if not any(_count(session, f"rare_{key}") for key in _KEYS):
            return
        absent = (f"NOT EXISTS (SELECT 1 FROM rare_{key} WHERE rare_{key}.{key} = core.{key})" for key in _KEYS)
        session.table("remaining", f"SELECT {own}, u, i FROM core WHERE {' AND '.join(absent)}")
        session.rename("remaining", "core")


def index_ids(session: Session, core: Core, tie: str | None = None) -> pa.Table:
    """Number users and items of `core` by their first appearance, and its events by both, for the two streams.

    Args:
        session: the engine's.
        core: what `keep_core` made.
        tie: by what events of the same time are ordered, in SQL; `None` for the order of the log.

    Returns:
        `item_index` from 1, `item_id`, `total` events and the `newest` in microseconds, by index.
    """
    session.table("users", "SELECT u, min(row) AS first FROM core GROUP BY u")
    counted = "SELECT i, min(row) AS first, count(*) AS total, max(micros) AS newest FROM core GROUP BY i"
    index = "CAST(row_number() OVER (ORDER BY first) AS INT)"
    session.table("items", f"SELECT i, {index} AS item_index, total, newest FROM ({counted}) counted")
    # Kept before they are sorted: then a sort is all that a stream has to hold in memory.
    more = [f", core.{name} AS {name}" for name in core.own if name != TIE]
    more += [f", {tie} AS {TIE}"] if tie else []
    events = f"""SELECT users.first AS first, items.item_index AS item_index, core.micros AS micros, core.row AS row
        {"".join(more)} FROM core JOIN users ON core.u = users.u JOIN items ON core.i = items.i"""
    session.table("events", events)
    for key, table in (("u", "users"), ("i", "items")):
        if core.numbered:
            joined = f"{table} JOIN {key}_names ON {table}.{key} = {key}_names.{key}"
            session.table(f"named_{table}", f"SELECT {table}.*, {key}_names.name AS name FROM {joined}")
        else:
            session.view(f"named_{table}", f"SELECT *, {key} AS name FROM {table}")
    columns = "item_index, name AS item_id, total, newest"
    items = session.stream(f"SELECT {columns} FROM named_items ORDER BY item_index", ["item_index"])
    return pa.Table.from_batches(items)


def stream_users(session: Session) -> Iterator[pa.RecordBatch]:
    """Yield `first`, the row of a user's first event, and `user_id`, in the order of first appearance."""
    return session.stream("SELECT first, name AS user_id FROM named_users ORDER BY first", ["first"])


def drawn(seed: int) -> str:
    """Return, in SQL, a number of a row that looks drawn: a polynomial modulo a prime, the same on any engine."""
    row = f"(core.row % {_PRIME})"
    mixed = f"(({row} * {row}) % {_PRIME} + {row} * 69621 + {seed % _PRIME}) % {_PRIME}"
    return f"(({mixed}) * 48271 + ({mixed}) * ({mixed})) % {_PRIME}"


def stream_events(session: Session, *, tied: bool = False) -> Iterator[pa.RecordBatch]:
    """Yield `first` (of the user), `item_index`, `micros`, `row` and the further columns of `core` of each event.

    They are ordered by user, then time; equal times by what `index_ids` was given.
    """
    order = ["first", "micros", TIE, "row"] if tied else ["first", "micros", "row"]
    return session.stream(f"SELECT * FROM events ORDER BY {', '.join(order)}", order)


def find_cuts(session: Session, events: int, valid_share: float, test_share: float) -> Cuts:
    """Return the times at which the last `valid_share + test_share` and `test_share` of all events begin."""
    places = [min(events - 1, int(events * (1 - share))) for share in (valid_share + test_share, test_share)]
    return Cuts(*(_time_at(session, place) for place in places))


def _time_at(session: Session, place: int) -> int:
    """Return the time of the event at a place (from 0) among all events in time order; sorts those of one day."""
    day = f"micros - micros % {DAY}"
    days = session.fetch(f"SELECT {day} AS day, count(*) AS events FROM core GROUP BY {day} ORDER BY day")
    for start, events in zip(*days.to_pydict().values(), strict=True):
        if place < events:
            within = f"SELECT micros FROM core WHERE {day} = {start} ORDER BY micros LIMIT 1 OFFSET {place}"
            return int(session.fetch(within)["micros"][0].as_py())
        place -= events
    raise ValueError(f"there is no event at place {place}")


def _count(session: Session, name: str) -> int:
    return int(session.fetch(f"SELECT count(*) AS rows FROM {name}")["rows"][0].as_py())
