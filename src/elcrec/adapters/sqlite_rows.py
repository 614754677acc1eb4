"""Histories in Feast's tables on SQLite: a transaction for each change."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, _quote_id, _table_id
from feast.repo_config import RepoConfig

from elcrec.adapters.history_rows import (
    EXPIRED_AT_ONCE,
    KEY_PREFIX,
    NEWCOMERS,
    Change,
    Entry,
    StoredHistory,
    entity_key,
    history_of,
    is_idle,
    store_replaced,
    user_of,
)
from elcrec.data.ids import normal_id
from elcrec.serving.histories import History, microseconds
from elcrec.serving.ports import StoreUnavailable

_SQLITE_WAIT_MS = 5_000
_CHECKPOINTS, _CHECKPOINT_SECONDS = 100, 0.05


class SqliteRows:
    """Rows on SQLite: a write transaction covers reading and writing, because SQLite allows one writer at a time."""

    def __init__(self, config: RepoConfig, view: FeatureView, identity: str | None) -> None:
        self._config, self._view, self._identity = config, view, identity
        self._store = SqliteOnlineStore()
        self._opened: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def read(self, user_ids: Sequence[str]) -> dict[str, History]:
        with self._connection() as connection:
            self._require_same(connection)
            rows = self._read(user_ids)
        return {user_id: row.history for user_id, row in rows.items() if row.history}

    def update(self, user_ids: Sequence[str], change: Change, entry: Entry) -> set[str]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not entry.published:
                self._require_same(connection)
            connection.execute("CREATE TABLE IF NOT EXISTS elcrec_newcomers (user_id TEXT PRIMARY KEY) WITHOUT ROWID")
            written, new = [], []
            found = self._read(user_ids)
            refused = self._without_room(connection, found, entry)
            for user_id, row in found.items():
                history = change(user_id, row.history)
                if user_id not in refused and history != row.history:
                    values, time = row.successor(history)
                    written.append((entity_key(user_id), values, time, datetime.now(UTC)))
                    new += [] if row.history else [user_id]
            if entry.published:
                connection.executemany("DELETE FROM elcrec_newcomers WHERE user_id = ?", [(user,) for user in user_ids])
            else:
                connection.executemany("INSERT OR IGNORE INTO elcrec_newcomers VALUES (?)", [(user,) for user in new])
            # Feast commits the transaction, including the statements above.
            self._store.online_write_batch(self._config, self._view, written, None)
        return refused

    def forget(self, user_id: str) -> int:
        version = self._config.entity_key_serialization_version
        key = serialize_entity_key(entity_key(user_id), entity_key_serialization_version=version)
        with self._connection() as connection:
            found = _delete(connection, [key, *_other_spellings(connection, key)])
            connection.commit()
            erase_deleted(connection)
        return found

    def expire(self, before: int) -> int:
        versioned = self._config.registry.enable_online_feature_view_versioning
        table = _quote_id(_table_id(self._config.project, self._view, versioned))
        query = (
            f"SELECT entity_key, value FROM {table} WHERE feature_name = 'event_times' AND entity_key > ? "
            "ORDER BY entity_key LIMIT ?"
        )
        last, removed = b"", 0
        while True:
            with self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                rows = connection.execute(query, (last, EXPIRED_AT_ONCE)).fetchall()
                idle = [key for key, times in rows if is_idle(times, before)]
                _delete(connection, idle)
                connection.commit()
            removed += len(idle)
            if len(rows) < EXPIRED_AT_ONCE:
                return removed
            last = rows[-1][0]

    def identity(self) -> str | None:
        with self._connection() as connection:
            return _sqlite_identity(connection)

    def name(self, identity: str) -> None:
        with self._connection() as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS elcrec_identity (name TEXT)")
            connection.execute("DELETE FROM elcrec_identity")
            connection.execute("INSERT INTO elcrec_identity VALUES (?)", (identity,))
        self._identity = identity

    def _require_same(self, connection: sqlite3.Connection) -> None:
        if self._identity is not None and _sqlite_identity(connection) != self._identity:
            raise store_replaced()

    def _without_room(
        self, connection: sqlite3.Connection, found: Mapping[str, StoredHistory], entry: Entry
    ) -> set[str]:
        """Return the users for whom the store has no room."""
        new = [user_id for user_id, row in found.items() if not row.history]
        if entry.most is None or not new:
            return set()
        ((known,),) = connection.execute("SELECT count(*) FROM elcrec_newcomers")
        return set(new[max(0, entry.most - known) :])

    def _read(self, user_ids: Sequence[str]) -> dict[str, StoredHistory]:
        found = self._store.online_read(self._config, self._view, [entity_key(user_id) for user_id in user_ids])
        return {
            user_id: StoredHistory(history_of(values), microseconds(time)) if values and time else StoredHistory()
            for user_id, (time, values) in zip(user_ids, found, strict=True)
        }

    def _open(self) -> sqlite3.Connection:
        if self._opened is None:
            connection = self._store._get_conn(self._config)  # noqa: SLF001 - Feast has no transactions
            connection.execute(f"PRAGMA busy_timeout={_SQLITE_WAIT_MS}")
            # Readers read the last committed state while a writer works, so no reader waits.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._opened = connection
        return self._opened

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._open()
                try:
                    yield connection
                finally:
                    connection.rollback()
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the online store does not answer ({error})", fix="try again") from error


def _other_spellings(connection: sqlite3.Connection, key: bytes) -> set[bytes]:
    """Return the other keys of the same user: stores of earlier versions have ids exactly as in the log."""
    user_id, found = normal_id(user_of(key)), set[bytes]()
    for table in _tables(connection):
        for (other,) in connection.execute(f"SELECT DISTINCT entity_key FROM {_quote_id(table)}"):
            if other != key and other.startswith(KEY_PREFIX) and normal_id(user_of(other)) == user_id:
                found.add(other)
    return found


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return Feast's tables."""
    columns = "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE c.name = 'entity_key'"
    return [table for (table,) in connection.execute(columns).fetchall()]


def _delete(connection: sqlite3.Connection, keys: Sequence[bytes]) -> int:
    """Delete users from all tables; return the number of Feast's tables that held one of them."""
    found = 0
    for table in _tables(connection):
        deleted = connection.executemany(f"DELETE FROM {_quote_id(table)} WHERE entity_key = ?", zip(keys))
        found += deleted.rowcount > 0
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (NEWCOMERS,)).fetchone():
        users = [(user_of(key),) for key in keys]
        connection.executemany("DELETE FROM elcrec_newcomers WHERE user_id = ?", users)
    return found


def _sqlite_identity(connection: sqlite3.Connection) -> str | None:
    try:
        row = connection.execute("SELECT name FROM elcrec_identity").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return str(row[0]) if row else None


def erase_deleted(connection: sqlite3.Connection) -> None:
    """Rewrite a database, including its write-ahead log, so that no deleted data stays on the disk.

    Raises:
        StoreUnavailable: another process reads the database for too long.
    """
    connection.execute("VACUUM")
    for _ in range(_CHECKPOINTS):
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not busy:
            return
        time.sleep(_CHECKPOINT_SECONDS)
    raise StoreUnavailable("another process reads the database for too long", fix="run it again")
