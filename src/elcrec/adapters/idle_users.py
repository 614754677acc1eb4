"""Users without recent events, by the time of the log: a push leaves them out of the online store."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.adapters.history_rows import HistoryRows
from elcrec.data.times import DAY

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class IdleUsers:
    """Users of a log whose newest event is long before the newest event of all.

    Attributes:
        days: days that a user may be idle; 0 for any number.
        since: a user with an event from this time on is kept, microseconds since 1970; `None` if all users are kept.
        in_log: users without such an event in the log.
        expired: those of them without such an event in the online store.
    """

    days: int
    since: int | None
    in_log: pa.ChunkedArray
    expired: pa.ChunkedArray

    @classmethod
    def find(cls, histories: Iterable[pa.Table], newest: int, days: int, rows: HistoryRows) -> Self:
        """Find idle users in a log that ends at `newest`, and look up their later events in the store."""
        nobody = pa.chunked_array([], pa.string())
        if not days:
            return cls(days=days, since=None, in_log=nobody, expired=nobody)
        since = newest - days * DAY
        found = [chunk for table in histories for chunk in _last_seen_before(since, table).chunks]
        idle = pa.chunked_array(found, pa.string())
        kept = _with_events(rows, idle, since)
        return cls(days=days, since=since, in_log=idle, expired=idle.filter(pc.invert(pc.is_in(idle, kept))))

    def published(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows of a view are published, [N]."""
        return _outside(self.expired, table)

    def active_in_log(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows of a view are published regardless of changes in the store, [N]."""
        return _outside(self.in_log, table)

    def remove(self, rows: HistoryRows) -> None:
        """Remove idle users from the online store, whichever publication or event they came from, and log it."""
        if self.since is None:
            return
        removed = rows.expire(self.since)
        what = "%d users of the log were idle for more than %d days and not published; %d users left the online store"
        logger.info(what, len(self.expired), self.days, removed)


def _last_seen_before(since: int, histories: pa.Table) -> pa.ChunkedArray:
    newest = histories["event_timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return histories["user_id"].filter(pc.less(newest, since)).cast(pa.string())


def _with_events(rows: HistoryRows, users: pa.ChunkedArray, since: int) -> pa.Array:
    """Return the users who have an event in the store from that time on; of dislikes alone, it keeps no times."""
    kept: list[str] = []
    for start in range(0, len(users), _READ_AT_ONCE):
        found = rows.read(users.slice(start, _READ_AT_ONCE).to_pylist())
        kept += [user_id for user_id, history in found.items() if history.times and history.times[-1] >= since]
    return pa.array(kept, pa.string())


def _outside(users: pa.ChunkedArray, table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows are not of these users, [N]."""
    if not len(users) or "user_id" not in table.column_names:
        return np.ones(len(table), bool)
    inside = pc.is_in(table["user_id"].cast(pa.string()), users)
    return np.asarray(pc.invert(inside))
