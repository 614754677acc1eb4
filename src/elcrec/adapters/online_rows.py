"""Histories in the online store, changed atomically: a writer replaces exactly the row that it read.

Rows have Feast's own format, so Feast's SDK and feature server can read them. Feast's push cannot write them safely: it
replaces a row even if the row has changed since it was read.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

import redis
from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key, _redis_key_prefix
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore, _quote_id, _table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, StringList, Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from elcrec.data.ids import normal_id
from elcrec.errors import UserError
from elcrec.serving.histories import History, instant, microseconds
from elcrec.serving.ports import StoreReplaced, StoreUnavailable

Change = Callable[[str, History], History]
"""Function from a user and their history to the new history; called again if another writer came first."""

_EMPTY = History()
_FIELDS = ("item_ids", "event_times", "event_ids", "seen_items")
_SQLITE_WAIT_MS = 5_000
_CHECKPOINTS, _CHECKPOINT_SECONDS = 100, 0.05
_ROUNDS = 200
_NEWCOMERS = "elcrec_newcomers"
"""Name of the list of users whom the store knows from events alone: a set on Redis, a table on SQLite."""
_REFUSED = -1
_EXPIRED_AT_ONCE = 1000
"""Number of users handled together: in a short transaction on SQLite, in a pipeline on Redis."""


class HistoryRows(Protocol):
    """The rows of the view that holds histories."""

    def read(self, user_ids: Sequence[str]) -> dict[str, History]:
        """Return the histories of those users who have one."""

    def update(self, user_ids: Sequence[str], change: Change, entry: "Entry") -> set[str]:
        """Change the histories of distinct users, each atomically; return the users who were refused.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def forget(self, user_id: str) -> int:
        """Erase everything under a user's keys, one per spelling of the id; return the number of rows.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def expire(self, before: int) -> int:
        """Remove everything of users whose newest event is older; return the number of users.

        A user who gets an event meanwhile stays.

        Args:
            before: microseconds since 1970.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def identity(self) -> str | None:
        """Return the name that the last complete publication gave the store; `None` if there was none."""

    def name(self, identity: str) -> None:
        """Name the store when a publication is complete."""


@dataclass(frozen=True)
class Entry:
    """How new users enter the store, which keeps a list of those whom it knows from events alone.

    Attributes:
        published: whether the users are in a publication, and so leave that list.
        most: largest length of the list; `None` for any length.
    """

    published: bool = False
    most: int | None = None


def open_rows(config: RepoConfig, view: FeatureView, identity: str | None = None) -> HistoryRows:
    """Return the rows of `view` in the online store that `config` names.

    Args:
        config: the configuration that names the store.
        view: the view of histories.
        identity: the store's name; a store of another name is neither read nor written. `None` accepts any.

    Raises:
        UserError: histories cannot be updated atomically in a store of this kind.
    """
    kind = config.online_store.type
    if kind == "sqlite":
        return SqliteRows(config, view, identity)
    if kind == "redis" and config.online_store.redis_type != "redis_cluster":
        return RedisRows(config, view, identity)
    raise UserError(f"no online store of type {kind!r} for live histories", fix="use sqlite or redis")


@dataclass(frozen=True)
class _Row:
    """A row in Feast's form: the history, and the time by which Feast compares rows, in microseconds."""

    history: History = _EMPTY
    time: int = -1

    def successor(self, history: History) -> tuple[dict[str, Value], datetime]:
        """Return the values and the time of the row that replaces this one.

        The time is that of the newest event, but always later than before: on Redis, we and Feast use it to distinguish
        rows, and a late event changes a row without being its newest.
        """
        time = max(*history.times[-1:], self.time + 1, 0)
        values = {
            "item_ids": Value(string_list_val=StringList(val=history.item_ids)),
            "event_times": Value(int64_list_val=Int64List(val=history.times)),
            "event_ids": Value(string_list_val=StringList(val=history.event_ids)),
            "seen_items": Value(string_list_val=StringList(val=history.seen)),
        }
        return values, instant(time)


def _history(values: dict[str, Value]) -> History:
    return History(
        item_ids=list(values["item_ids"].string_list_val.val),
        times=list(values["event_times"].int64_list_val.val),
        event_ids=list(values["event_ids"].string_list_val.val),
        # Rows of earlier versions lack this column.
        seen=list(values["seen_items"].string_list_val.val) if "seen_items" in values else [],
    )


def _key(user_id: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)])


_KEY_PREFIX: bytes = _redis_key_prefix(["user_id"])
"""Prefix of the serialized key of every user."""


def _user_of(key: bytes) -> str:
    """Return the id in a serialized key, after its type and its length of four bytes each."""
    return key[len(_KEY_PREFIX) + 8 :].decode(errors="replace")


def _newest(event_times: bytes) -> int:
    """Return the last time in a serialized column; the earliest possible one if there is none."""
    times = Value.FromString(event_times).int64_list_val.val
    return int(times[-1]) if times else -1


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
                    written.append((_key(user_id), values, time, datetime.now(UTC)))
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
        key = serialize_entity_key(_key(user_id), entity_key_serialization_version=version)
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
                rows = connection.execute(query, (last, _EXPIRED_AT_ONCE)).fetchall()
                idle = [key for key, times in rows if _newest(times) < before]
                _delete(connection, idle)
                connection.commit()
            removed += len(idle)
            if len(rows) < _EXPIRED_AT_ONCE:
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
            raise _replaced()

    def _without_room(self, connection: sqlite3.Connection, found: Mapping[str, _Row], entry: Entry) -> set[str]:
        """Return the users for whom the store has no room."""
        new = [user_id for user_id, row in found.items() if not row.history]
        if entry.most is None or not new:
            return set()
        ((known,),) = connection.execute("SELECT count(*) FROM elcrec_newcomers")
        return set(new[max(0, entry.most - known) :])

    def _read(self, user_ids: Sequence[str]) -> dict[str, _Row]:
        found = self._store.online_read(self._config, self._view, [_key(user_id) for user_id in user_ids])
        return {
            user_id: _Row(_history(values), microseconds(time)) if values and time else _Row()
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
    user_id, found = normal_id(_user_of(key)), set[bytes]()
    for table in _tables(connection):
        for (other,) in connection.execute(f"SELECT DISTINCT entity_key FROM {_quote_id(table)}"):
            if other != key and other.startswith(_KEY_PREFIX) and normal_id(_user_of(other)) == user_id:
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
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_NEWCOMERS,)).fetchone():
        users = [(_user_of(key),) for key in keys]
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


def _replaced() -> StoreReplaced:
    what = "the online store is not the one that was published: it was emptied, replaced, or published only in part"
    return StoreReplaced(what, fix="run `elcrec push` again, or restore it")


_COMPARE_AND_SET = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
local user, most = ARGV[3], tonumber(ARGV[4])
if most == nil then
    redis.call('SREM', KEYS[2], user)
elseif ARGV[2] == '' then
    if most >= 0 and redis.call('SCARD', KEYS[2]) >= most then return -1 end
    redis.call('SADD', KEYS[2], user)
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
return 1
"""

_COMPARE_AND_DELETE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('SREM', KEYS[2], ARGV[3])
return redis.call('DEL', KEYS[1])
"""


class RedisRows:
    """Rows on Redis, with compare and set: a row is written only if it is unchanged since it was read, else read again.

    The time of a row serves as its version, because it increases with every write. There is no lock that a dying writer
    could leave behind, and a writer tries again only if another one has succeeded.
    """

    def __init__(self, config: RepoConfig, view: FeatureView, identity: str | None) -> None:
        self._config, self._identity = config, identity
        self._identity_key = f"elcrec_identity:{config.project}"
        self._newcomers = f"{_NEWCOMERS}:{config.project}"
        # Created once, before threads share it: otherwise several threads could each make Feast create a client, and a
        # discarded client closes connections that others use.
        self._store = RedisOnlineStore()
        self._client: Any = self._store._get_client(config.online_store)  # noqa: SLF001 - as Feast creates its own
        self._time_field = f"_ts:{view.name}".encode()
        self._fields = {name: _mmh3(f"{view.name}:{name}") for name in _FIELDS}

    def read(self, user_ids: Sequence[str]) -> dict[str, History]:
        with redis_errors():
            rows = self._read(user_ids, check=True)
        return {user_id: row.history for user_id, (row, _) in rows.items() if row.history}

    def update(self, user_ids: Sequence[str], change: Change, entry: Entry) -> set[str]:
        left, refused = list(user_ids), set[str]()
        with redis_errors():
            for _ in range(_ROUNDS):
                left = self._try(left, change, entry, refused)
                if not left:
                    return refused
        raise StoreUnavailable(f"{len(left)} histories change too fast to be written", fix="try again")

    def forget(self, user_id: str) -> int:
        same = {user_id}
        with redis_errors():
            for key in self._client.scan_iter(match=self._pattern, count=_EXPIRED_AT_ONCE):
                other = self._own_user(key)
                if other is not None and normal_id(other) == normal_id(user_id):
                    same.add(other)
            with self._client.pipeline() as pipe:
                pipe.delete(*map(self._redis_key, same)).srem(self._newcomers, *same)
                found, _ = pipe.execute()
        return int(found)

    def expire(self, before: int) -> int:
        removed = 0
        with redis_errors():
            keys = self._client.scan_iter(match=self._pattern, count=_EXPIRED_AT_ONCE)
            while part := list(islice(keys, _EXPIRED_AT_ONCE)):
                removed += self._expire(part, before)
        return removed

    def _expire(self, keys: Sequence[bytes], before: int) -> int:
        fields = [self._time_field, self._fields["event_times"]]
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, fields)
            for key, (version, times) in zip(keys, pipe.execute(), strict=True):
                user_id = self._own_user(key)
                if times is not None and _newest(times) < before and user_id is not None:
                    pipe.eval(_COMPARE_AND_DELETE, 2, key, self._newcomers, self._time_field, version, user_id)
            return sum(pipe.execute())

    def identity(self) -> str | None:
        with redis_errors():
            found = self._client.get(self._identity_key)
        return None if found is None else found.decode()

    def name(self, identity: str) -> None:
        with redis_errors():
            self._client.set(self._identity_key, identity)
        self._identity = identity

    def _try(self, user_ids: Sequence[str], change: Change, entry: Entry, refused: set[str]) -> list[str]:
        """Try to write once; return the users whose rows changed meanwhile, and add refused users to `refused`."""
        tried = []
        with self._client.pipeline(transaction=False) as pipe:
            for user_id, (row, version) in self._read(user_ids, check=not entry.published).items():
                history = change(user_id, row.history)
                if history != row.history:
                    tried.append(user_id)
                    self._queue(pipe, user_id, version, *row.successor(history), entry)
            outcomes = pipe.execute()
        if self._lifetime:
            outcomes = outcomes[::2]
        refused.update(user_id for user_id, outcome in zip(tried, outcomes, strict=True) if outcome == _REFUSED)
        return [user_id for user_id, outcome in zip(tried, outcomes, strict=True) if not outcome]

    def _queue(
        self, pipe: Any, user_id: str, version: bytes, values: dict[str, Value], time: datetime, entry: Entry
    ) -> None:
        stamp = Timestamp()
        stamp.FromDatetime(time)
        pairs = [self._time_field, stamp.SerializeToString()]
        for name, value in values.items():
            pairs += [self._fields[name], value.SerializeToString()]
        key = self._redis_key(user_id)
        most = "published" if entry.published else -1 if entry.most is None else entry.most
        pipe.eval(_COMPARE_AND_SET, 2, key, self._newcomers, self._time_field, version, user_id, most, *pairs)
        if self._lifetime:
            pipe.expire(key, self._lifetime)

    def _read(self, user_ids: Sequence[str], *, check: bool) -> dict[str, tuple[_Row, bytes]]:
        fields = [self._time_field, *self._fields.values()]
        with self._client.pipeline(transaction=False) as pipe:
            pipe.get(self._identity_key)
            for user_id in user_ids:
                pipe.hmget(self._redis_key(user_id), fields)
            identity, *found = pipe.execute()
        if check and self._identity is not None and identity != self._identity.encode():
            raise _replaced()
        return {user_id: self._row(values) for user_id, values in zip(user_ids, found, strict=True)}

    def _row(self, found: Sequence[bytes | None]) -> tuple[_Row, bytes]:
        version, *texts = found
        if version is None:
            return _Row(), b""
        values = {name: Value.FromString(text or b"") for name, text in zip(self._fields, texts, strict=True)}
        stamp = Timestamp.FromString(version)
        return _Row(_history(values), stamp.ToMicroseconds()), version

    @property
    def _pattern(self) -> bytes:
        pattern: bytes = _KEY_PREFIX + b"*" + self._config.project.encode()
        return pattern

    def _own_user(self, key: bytes) -> str | None:
        """Return the user of a key, `None` for a key of another project whose name has the same ending."""
        user_id = _user_of(key.removesuffix(self._config.project.encode()))
        return user_id if self._redis_key(user_id) == key else None

    def _redis_key(self, user_id: str) -> bytes:
        version = self._config.entity_key_serialization_version
        key: bytes = _redis_key(self._config.project, _key(user_id), entity_key_serialization_version=version)
        return key

    @property
    def _lifetime(self) -> int | None:
        seconds: int | None = self._config.online_store.key_ttl_seconds
        return seconds


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


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn exceptions of redis-py into an error of one line; their text has the address, never the password."""
    try:
        yield
    except redis.RedisError as error:
        raise StoreUnavailable(
            f"the online store does not answer ({error})", fix="check REDIS and try again"
        ) from error
