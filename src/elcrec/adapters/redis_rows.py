"""Histories in Feast's rows on Redis: compare and set for each change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any

import redis
from feast import FeatureView
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from elcrec.adapters.history_rows import (
    EXPIRED_AT_ONCE,
    FIELDS,
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
from elcrec.serving.histories import History
from elcrec.serving.ports import StoreUnavailable

_ROUNDS = 200
_REFUSED = -1
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
        self._newcomers = f"{NEWCOMERS}:{config.project}"
        # Created once, before threads share it: otherwise several threads could each make Feast create a client, and a
        # discarded client closes connections that others use.
        self._store = RedisOnlineStore()
        self._client: Any = self._store._get_client(config.online_store)  # noqa: SLF001 - as Feast does
        self._time_field = f"_ts:{view.name}".encode()
        self._fields = {name: _mmh3(f"{view.name}:{name}") for name in FIELDS}

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
            for key in self._client.scan_iter(match=self._pattern, count=EXPIRED_AT_ONCE):
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
            keys = self._client.scan_iter(match=self._pattern, count=EXPIRED_AT_ONCE)
            while part := list(islice(keys, EXPIRED_AT_ONCE)):
                removed += self._expire(part, before)
        return removed

    def _expire(self, keys: Sequence[bytes], before: int) -> int:
        fields = [self._time_field, self._fields["event_times"]]
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, fields)
            for key, (version, times) in zip(keys, pipe.execute(), strict=True):
                user_id = self._own_user(key)
                if times is not None and is_idle(times, before) and user_id is not None:
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

    def _read(self, user_ids: Sequence[str], *, check: bool) -> dict[str, tuple[StoredHistory, bytes]]:
        fields = [self._time_field, *self._fields.values()]
        with self._client.pipeline(transaction=False) as pipe:
            pipe.get(self._identity_key)
            for user_id in user_ids:
                pipe.hmget(self._redis_key(user_id), fields)
            identity, *found = pipe.execute()
        if check and self._identity is not None and identity != self._identity.encode():
            raise store_replaced()
        return {user_id: self._row(values) for user_id, values in zip(user_ids, found, strict=True)}

    def _row(self, found: Sequence[bytes | None]) -> tuple[StoredHistory, bytes]:
        version, *texts = found
        if version is None:
            return StoredHistory(), b""
        values = {name: Value.FromString(text or b"") for name, text in zip(self._fields, texts, strict=True)}
        stamp = Timestamp.FromString(version)
        return StoredHistory(history_of(values), stamp.ToMicroseconds()), version

    @property
    def _pattern(self) -> bytes:
        pattern: bytes = KEY_PREFIX + b"*" + self._config.project.encode()
        return pattern

    def _own_user(self, key: bytes) -> str | None:
        """Return the user of a key, `None` for a key of another project whose name has the same ending."""
        user_id = user_of(key.removesuffix(self._config.project.encode()))
        return user_id if self._redis_key(user_id) == key else None

    def _redis_key(self, user_id: str) -> bytes:
        version = self._config.entity_key_serialization_version
        key: bytes = _redis_key(self._config.project, entity_key(user_id), entity_key_serialization_version=version)
        return key

    @property
    def _lifetime(self) -> int | None:
        seconds: int | None = self._config.online_store.key_ttl_seconds
        return seconds


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn exceptions of redis-py into an error of one line; their text has the address, never the password."""
    try:
        yield
    except redis.RedisError as error:
        raise StoreUnavailable(
            f"the online store does not answer ({error})", fix="check REDIS and try again"
        ) from error
