"""The event log: all accepted live events, kept until trimmed, even if the online store is lost.

It is kept next to the online store, because every server and command reaches that. On SQLite it is a separate file,
which survives if the store is torn down or lost. On Redis it is one stream per user, so that deleting one key forgets a
user. See docs/adr/0013 for the reasons.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis

from elcrec.adapters.redis_rows import redis_errors
from elcrec.adapters.sqlite_rows import erase_deleted
from elcrec.data.ids import normal_id
from elcrec.serving.histories import event_key, microseconds
from elcrec.serving.ports import LOG_SCHEMA, Event, StoreUnavailable

logger = logging.getLogger(__name__)

_AT_ONCE = 20_000
_KEYS_AT_ONCE = 500
_WAIT_SECONDS = 5.0
_REWRITES, _REWRITE_SECONDS = 600, 0.1
_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, event_id TEXT NOT NULL, item_id TEXT NOT NULL,
    time INTEGER NOT NULL, logged INTEGER NOT NULL, answer_id TEXT, kind TEXT, UNIQUE (user_id, event_id)
)
"""
_INSERT = """
INSERT OR IGNORE INTO events (user_id, event_id, item_id, time, logged, answer_id, kind) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ROWS = "SELECT logged, user_id, item_id, time, event_id, answer_id, kind FROM events WHERE number <= ? ORDER BY number"
_LATER_COLUMNS = ("answer_id", "kind")

Row = tuple[int, str, str, int, str, str | None, str | None]
"""One row: the values of the columns of LOG_SCHEMA."""


class SqliteEventLog:
    """The event log as a SQLite table; an event that it holds is not added again."""

    def __init__(self, path: Path) -> None:
        """Take the file; the first event creates it."""
        self._path = path
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._lock = threading.Lock()

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`. When this returns, the transaction is on the disk, not only in the system's cache."""
        now = time.time_ns() // 1000
        rows = [
            (
                event.user_id,
                event_key(event),
                event.item_id,
                microseconds(event.timestamp),
                now,
                event.answer_id,
                event.kind,
            )
            for event in events
        ]
        with self._lock, _sqlite_errors():
            connection = self._writer()
            with connection:
                connection.executemany(_INSERT, rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `EventLog`."""
        if not self._path.exists():
            return
        with _sqlite_errors(), closing(self._connect()) as connection:
            ((last,),) = connection.execute("SELECT ifnull(max(number), 0) FROM events")
            found = connection.execute(_ROWS, (last,))
            while rows := found.fetchmany(_AT_ONCE):
                yield _batch(rows)

    def forget(self, user_id: str) -> int:
        """See `EventLog`. The file is rewritten, so that no page of it still holds deleted data."""
        if not self._path.exists():
            return 0
        with _sqlite_errors(), closing(self._connect()) as connection:
            with connection:
                users = connection.execute("SELECT DISTINCT user_id FROM events")
                same = [(other,) for (other,) in users if normal_id(other) == normal_id(user_id)]
                deleted = connection.executemany("DELETE FROM events WHERE user_id = ?", same).rowcount
            erase_deleted(connection)
        return max(0, deleted)

    def trim(self, before: datetime) -> int:
        """See `EventLog`."""
        if not self._path.exists():
            return 0
        with _sqlite_errors(), closing(self._connect()) as connection, connection:
            return connection.execute("DELETE FROM events WHERE logged < ?", (microseconds(before),)).rowcount

    def _writer(self) -> sqlite3.Connection:
        """Return the open connection, or a new one if the file was replaced."""
        known = self._opened
        if known is None or not self._path.exists() or self._path.stat().st_ino != known[0]:
            if known is not None:
                known[1].close()
            connection = self._connect()
            self._opened = self._path.stat().st_ino, connection
            return connection
        return known[1]

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_TABLE)
        _add_columns(connection)
        return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """Add the columns that an older log lacks; another process may do so at the same time."""
    found = {name for _, name, *_ in connection.execute("PRAGMA table_info(events)")}
    for column in (name for name in _LATER_COLUMNS if name not in found):
        try:
            connection.execute(f"ALTER TABLE events ADD COLUMN {column} TEXT")
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):
                raise


class RedisEventLog:
    """The event log as one Redis stream per user. A repeated event may be in it twice; readers recognise it by its id.

    It is as durable as Redis itself: configure an append-only file.
    """

    def __init__(self, client: Any, project: str) -> None:
        """Take the connection and the Feast project, whose name is part of the keys."""
        self._client, self._prefix = client, f"elcrec_events:{project}:"

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""
        with redis_errors(), self._client.pipeline(transaction=True) as pipe:
            for event in events:
                fields = {"i": event.item_id, "t": microseconds(event.timestamp), "e": event_key(event)}
                optional = {"a": event.answer_id, "k": event.kind}
                fields |= {name: value for name, value in optional.items() if value is not None}
                pipe.xadd(self._prefix + event.user_id, fields)
            pipe.execute()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `EventLog`. Events that arrive meanwhile may or may not be included."""
        with redis_errors():
            rows = self._rows()
            while part := list(islice(rows, _AT_ONCE)):
                yield _batch(part)

    def forget(self, user_id: str) -> int:
        """See `EventLog`. Also requests a rewrite of Redis' append-only file, which holds all earlier commands."""
        count = 0
        with redis_errors():
            for keys in self._keys():
                for key in keys:
                    if normal_id(self._user_of(key)) == normal_id(user_id):
                        events, _ = self._client.pipeline().xlen(key).delete(key).execute()
                        count += events
            self._rewrite_file()
        return count

    def trim(self, before: datetime) -> int:
        """See `EventLog`."""
        least, removed = microseconds(before) // 1000, 0
        with redis_errors():
            for keys in self._keys():
                with self._client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.xtrim(key, minid=least, approximate=False)
                    removed += sum(pipe.execute())
        return removed

    def _rewrite_file(self) -> None:
        """Request a rewrite of the append-only file; a rewrite already in progress may still hold erased data."""
        try:
            for _ in range(_REWRITES):
                state = self._client.info("persistence")
                if not state.get("aof_enabled"):
                    return
                if not state["aof_rewrite_in_progress"]:
                    self._client.bgrewriteaof()
                    return
                time.sleep(_REWRITE_SECONDS)
            problem = "another rewrite takes too long"
        except redis.ResponseError as error:
            problem = str(error)
        logger.warning("Redis keeps the erased data in its append-only file until the next rewrite: %s", problem)

    def _keys(self) -> Iterator[list[bytes]]:
        pattern = "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in self._prefix)
        keys = self._client.scan_iter(match=f"{pattern}*", count=_KEYS_AT_ONCE)
        while part := list(islice(keys, _KEYS_AT_ONCE)):
            yield part

    def _user_of(self, key: bytes) -> str:
        return key.decode().removeprefix(self._prefix)

    def _rows(self) -> Iterator[Row]:
        for keys in self._keys():
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.xrange(key)
                streams = pipe.execute()
            for key, entries in zip(keys, streams, strict=True):
                user_id = self._user_of(key)
                for number, fields in entries:
                    logged = int(number.partition(b"-")[0]) * 1000
                    texts = (None if text is None else text.decode() for text in map(fields.get, (b"a", b"k")))
                    yield logged, user_id, fields[b"i"].decode(), int(fields[b"t"]), fields[b"e"].decode(), *texts


def _batch(rows: Iterable[Row]) -> pa.RecordBatch:
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), LOG_SCHEMA, strict=True)]
    return pa.record_batch(columns, schema=LOG_SCHEMA)


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the event log does not answer ({error})", fix="try again") from error
