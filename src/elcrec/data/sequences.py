"""From interactions to sorted events, in SQL: filter, index and cut; data/fold.py turns them into rows."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.interactions import TIE
from elcrec.data.times import DAY

_PRIME = 2**31 - 1
_KEYS = {"u": "user_id", "i": "item_id"}


class Core(NamedTuple):
    """The events of the k-core: their number, whether users and items are numbered, and further columns."""

    events: int
    numbered: bool
    own: tuple[str, ...]


class Cuts(NamedTuple):
    """Instants of a temporal split, in microseconds."""

    valid: int
    test: int


def keep_core(session: Session, k: int, more: Collection[str] = ()) -> Core:
    """Create `core`: the events of the view `log` after removing users and items with fewer than `k` events.

    It has `row`, `micros`, the columns in `more`, and `u` and `i` for user and item: their ids, or, if something must
    be removed, numbers, whose ids are in the tables `u_names` and `i_names`.
    """
    own = ", ".join(["row", "micros", *more])
    if k > 1:
        _number(session, own)
        _peel(session, k, own)
    else:
        session.view("core", f"SELECT {own}, user_id AS u, item_id AS i FROM log")
    return Core(events=_count(session, "core"), numbered=k > 1, own=tuple(more))


def _number(session: Session, own: str) -> None:
    """Create `core` with numbers, which take less space in each round."""
    for key, name in _KEYS.items():
        session.table(f"{key}_names", f"SELECT {name} AS name, min(row) AS {key} FROM log GROUP BY {name}")
    numbered = f"""SELECT {own}, u_names.u AS u, i_names.i AS i
        FROM log JOIN u_names ON log.user_id = u_names.name JOIN i_names ON log.item_id = i_names.name"""
    session.table("core", numbered)


def _peel(session: Session, k: int, own: str) -> None:
    """Remove rare users and items from `core` until none is left."""
    while True:
        for key in _KEYS:
            session.table(f"rare_{key}", f"SELECT {key} FROM core GROUP BY {key} HAVING count(*) < {k}")
        if not any(_count(session, f"rare_{key}") for key in _KEYS):
            return
        absent = (f"NOT EXISTS (SELECT 1 FROM rare_{key} WHERE rare_{key}.{key} = core.{key})" for key in _KEYS)
        session.table("remaining", f"SELECT {own}, u, i FROM core WHERE {' AND '.join(absent)}")
        session.rename("remaining", "core")


def index_ids(session: Session, core: Core, tie: str | None = None) -> pa.Table:
    """Number users and items of `core` by first appearance, and prepare the tables for the two streams.

    Args:
        session: the session of the engine.
        core: the result of `keep_core`.
        tie: SQL by which events of the same time are ordered; `None` for the order of the log.

    Returns:
        `item_index` from 1, `item_id`, `total` events and the `newest` in microseconds, by index.
    """
    session.table("users", "SELECT u, min(row) AS first FROM core GROUP BY u")
    counted = "SELECT i, min(row) AS first, count(*) AS total, max(micros) AS newest FROM core GROUP BY i"
    index = "CAST(row_number() OVER (ORDER BY first) AS INT)"
    session.table("items", f"SELECT i, {index} AS item_index, total, newest FROM ({counted}) counted")
    # The events are stored before they are sorted, so that a stream needs memory only for the sort.
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
    """Yield `first`, the row of a user's first event, and `user_id`, ordered by first appearance."""
    return session.stream("SELECT first, name AS user_id FROM named_users ORDER BY first", ["first"])


def drawn(seed: int) -> str:
    """Return SQL for a pseudo-random number of a row: a polynomial modulo a prime, the same on any engine."""
    row = f"(core.row % {_PRIME})"
    mixed = f"(({row} * {row}) % {_PRIME} + {row} * 69621 + {seed % _PRIME}) % {_PRIME}"
    return f"(({mixed}) * 48271 + ({mixed}) * ({mixed})) % {_PRIME}"


def stream_events(session: Session, *, tied: bool = False) -> Iterator[pa.RecordBatch]:
    """Yield `first` (of the user), `item_index`, `micros`, `row` and the further columns of `core` of each event.

    They are ordered by user, then time; equal times by the `tie` of `index_ids`.
    """
    order = ["first", "micros", TIE, "row"] if tied else ["first", "micros", "row"]
    return session.stream(f"SELECT * FROM events ORDER BY {', '.join(order)}", order)


def find_cuts(session: Session, events: int, valid_share: float, test_share: float) -> Cuts:
    """Return the times at which the last `valid_share + test_share` and `test_share` of all events begin."""
    places = [min(events - 1, int(events * (1 - share))) for share in (valid_share + test_share, test_share)]
    return Cuts(*(_time_at(session, place) for place in places))


def _time_at(session: Session, place: int) -> int:
    """Return the time of the event at a position (from 0) in time order; only the events of one day are sorted."""
    day = f"micros - micros % {DAY}"
    days = session.fetch(f"SELECT {day} AS day, count(*) AS events FROM core GROUP BY {day} ORDER BY day")
    for start, events in zip(*days.to_pydict().values(), strict=True):
        if place < events:
            within = f"SELECT micros FROM core WHERE {day} = {start} ORDER BY micros LIMIT 1 OFFSET {place}"
            return int(session.fetch(within)["micros"][0].as_py())
        place -= events
    raise ValueError(f"there is no event at position {place}")


def _count(session: Session, name: str) -> int:
    return int(session.fetch(f"SELECT count(*) AS rows FROM {name}")["rows"][0].as_py())
