"""Feast as the feature store: definitions from the repository folder, data under the store folder or on servers."""

import atexit
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.adapters.quiet import quiet, unguarded
from elcrec.artifacts import atomic_file
from elcrec.errors import UserError
from elcrec.serving.histories import Fate, History, add_events, instant, merge_publication, require_valid
from elcrec.serving.ports import Event, FeatureTables, PushOutcome, StoreUnavailable, UserFeatures, UserHistory

with quiet("feast"), unguarded():
    from feast import FeatureService, FeatureStore, FeatureView
    from feast.errors import FeastError, FeatureServiceNotFoundException, FeatureViewNotFoundException
    from sqlalchemy.exc import SQLAlchemyError

    from elcrec.adapters.feast_config import FeastConfig, Servers, file_lock
    from elcrec.adapters.feast_definitions import definitions_for, published_schema, repository_schema
    from elcrec.adapters.online_rows import Entry, HistoryRows, open_rows, redis_errors
    from elcrec.adapters.publication import Publication


def _mute_stderr() -> None:
    """DuckDB's binding lists dozens of "leaked" objects when a process ends that has loaded torch as well."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


# First registered is last called: whatever other exit handlers have to say is still heard.
atexit.register(_mute_stderr)

_MARGIN = timedelta(days=1)
_CHECKED_KEYS = 5000
_READ_KEYS = 500
_USERS_AT_ONCE = 200
"""Users whose events are written together: within a reader's patience, and a short transaction on SQLite."""


@dataclass(frozen=True, kw_only=True)
class _View:
    """A feature view, the file behind it, and the columns that prove that it was loaded."""

    name: str
    file: str
    key: str
    witnesses: tuple[str, ...]


_HISTORY = _View(name="user_history", file="histories.parquet", key="user_id", witnesses=("item_ids",))
_OUTPUT = _View(name="user_model_output", file="model_outputs.parquet", key="user_id", witnesses=("intent", "bundle"))
_ITEMS = _View(name="item_statistics", file="item_statistics.parquet", key="item_id", witnesses=("count", "total"))


class FeastStore:
    """A `FeatureStore` on Feast, in process. Threads may share it, other processes use the same store."""

    def __init__(self, store: Path, repository: Path, servers: Servers | None = None) -> None:
        """Take the store folder, the Feast repository (feature_store.yaml and definitions) and servers, if any."""
        self._store_folder = store
        self._folder = store / "feast"
        self._config = FeastConfig(repository=repository, folder=self._folder, servers=servers or Servers())
        self._services: dict[str, FeatureService] = {}
        self._live: tuple[HistoryRows, int] | None = None

    def publish(self, tables: FeatureTables, *, service: str) -> dict[str, int]:
        """See `FeatureStore`. The offline files are replaced, then loaded online in chunks.

        Raises:
            UserError: as `FeatureStore.publish`, the repository is not sound, histories are longer than the
                view's window, or another process is publishing.
            StoreUnavailable: the online store or the registry does not answer.
        """
        busy = UserError("another push is publishing", where=self._folder, fix="try again when it is done")
        with file_lock(self._folder / "publish.lock", otherwise=busy):
            with _errors(), quiet("feast"):
                feast = self._open(patient=True)
                self._apply(feast)
            self._require_service(feast, service)
            rows, window = _history_rows(feast)
            _require_window(tables.histories, window)
            publication = Publication.begin(
                self._folder / "publication.json", self._config.target(), lambda moment: self._write(tables, moment)
            )
            published = _online_tables(tables, publication.moment)
            for view, table in published.items():
                for part in publication.chunks(view.name, len(table)):
                    chunk = table.slice(part.start, part.stop - part.start)
                    if view is _HISTORY:
                        _publish_histories(rows, chunk, window)
                    else:
                        _load(feast, view, chunk)
            publication.finish()
            for view, table in published.items():
                _record(feast, view, table)
            self._read_back(feast, published, rows, window)
        self._services, self._live = {}, None
        return {view.name: len(table) for view, table in published.items()}

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """See `FeatureStore`. A model output that is older than its view's TTL is left out.

        Raises:
            UserError: `service` was never published to this store.
            StoreUnavailable: the online store does not answer.
        """
        if not user_ids:
            return []
        if service not in self._services:
            self.check(service)
        with _errors():
            features = self._services[service]
            response = self._feast.get_online_features(features=features, entity_rows={"user_id": list(user_ids)})
        names = list(response.proto.metadata.feature_names.val)
        computed = response.proto.results[names.index("bundle")].event_timestamps
        columns, oldest = response.to_dict(), datetime.now(UTC).timestamp() - self._lifetime
        return [_user_features(columns, row, fresh=computed[row].seconds >= oldest) for row in range(len(user_ids))]

    def histories(self, user_ids: Sequence[str], *, service: str) -> list[UserHistory | None]:
        """See `FeatureStore`. Reads Feast's rows without its retrieval, which takes three times as long for one user.

        Raises:
            UserError: `service` was never published to this store.
            StoreUnavailable: the online store does not answer.
        """
        if service not in self._services:
            self.check(service)
        found = self._readable.read(user_ids)
        return [
            UserHistory(item_ids=history.item_ids, updated=instant(history.times[-1])) if history else None
            for history in map(found.get, user_ids)
        ]

    def push_events(self, events: Sequence[Event], *, new_users: int | None = None) -> PushOutcome:
        """See `FeatureStore`.

        Raises:
            UserError: an event is not valid, or nothing was published to this store yet.
            StoreUnavailable: the online store does not answer.
        """
        now, by_user = datetime.now(UTC), dict[str, list[Event]]()
        for number, event in enumerate(events, start=1):
            require_valid(event, now=now, where=f"event {number}")
            by_user.setdefault(event.user_id, []).append(event)
        if self._live is None:
            with _errors():
                self._live = _history_rows(self._feast)
        rows, window = self._live
        fates: dict[str, Counter[Fate]] = {}

        def change(user_id: str, history: History) -> History:
            history, fates[user_id] = add_events(history, by_user[user_id], window)
            return history

        users, refused = list(by_user), set[str]()
        for start in range(0, len(users), _USERS_AT_ONCE):
            refused |= rows.update(users[start : start + _USERS_AT_ONCE], change, Entry(most=new_users))
        total = sum((fates[user_id] for user_id in users if user_id not in refused), Counter())
        counts = {"accepted": Fate.ACCEPTED, "duplicates": Fate.DUPLICATE, "late": Fate.LATE}
        return PushOutcome(
            **{name: total[fate] for name, fate in counts.items()},
            refused=sum(len(by_user[user_id]) for user_id in refused),
            users=len(users),
        )

    def check(self, service: str, schema: str | None = None) -> None:
        """See `FeatureStore`. Readers see what others have applied since the last check.

        Raises:
            UserError: the service is missing or differs.
            StoreUnavailable: the registry does not answer.
        """
        with _errors(), quiet("feast"):
            self._feast.refresh_registry()
            found = self._require_service(self._feast, service)
            different = schema is not None and published_schema(self._feast, found) != schema
        if different:
            fix = "push the model again, or apply the definitions that it was made with under another version"
            what = f"feature service {service!r} has another schema than the model was made with"
            raise UserError(what, where=self._folder, fix=fix)
        self._services[service] = found

    def schema(self, service: str) -> str:
        """See `FeatureStore`.

        Raises:
            UserError: the repository does not define it, or is not sound.
        """
        self._config.require()
        with _errors(), quiet("feast"):
            digest = repository_schema(self._config.repository, service)
        if digest is None:
            raise self._unknown(service)
        return digest

    @cached_property
    def _feast(self) -> FeatureStore:
        return self._open()

    @cached_property
    def _readable(self) -> HistoryRows:
        """The rows of histories for readers alone: on SQLite they have a connection that no writer holds."""
        with _errors():
            return _history_rows(self._feast)[0]

    @cached_property
    def _lifetime(self) -> float:
        """For how long a model output is worth reading, seconds."""
        seconds: float = self._feast.get_feature_view(_OUTPUT.name).ttl.total_seconds()
        return seconds or float("inf")

    def _open(self, *, patient: bool = False) -> FeatureStore:
        self._config.require()
        with self._config.registry_lock():
            return FeatureStore(config=self._config.load(patient=patient))

    def _apply(self, feast: FeatureStore) -> None:
        """Bring the repository's definitions into the registry, with sources in this store.

        What the repository lacks stays: it may be what another version of it serves. `feast apply` removes it.
        """
        objects = definitions_for(self._config.repository, self._store_folder)
        with self._config.registry_lock():
            feast.apply(objects)
        feast.refresh_registry()

    def _require_service(self, feast: FeatureStore, service: str) -> FeatureService:
        try:
            return feast.get_feature_service(service)
        except FeatureServiceNotFoundException as error:
            raise self._unknown(service) from error

    def _unknown(self, service: str) -> UserError:
        fix = f"define it in {self._config.repository} (push.feature_service names it) and push"
        return UserError(f"feature service {service!r} is unknown", where=self._folder, fix=fix)

    def _write(self, tables: FeatureTables, moment: datetime) -> dict[str, Path]:
        """Write the offline files: what is served, and histories as they stood at the split points."""
        written = {}
        served = _online_tables(tables, moment)
        everything = pa.concat_tables([_with_arrival(tables.earlier), served[_HISTORY].drop_columns("created")])
        # Of rows of the same event time, the later is the one that counts.
        ages = np.arange(len(everything) - 1, -1, -1).astype("timedelta64[us]")
        created = pa.array(np.datetime64(moment.replace(tzinfo=None), "us") - ages, pa.timestamp("us", tz="UTC"))
        for view, table in {**served, _HISTORY: everything.append_column("created", created)}.items():
            written[view.name] = self._folder / "data" / view.file
            with atomic_file(written[view.name]) as scratch:
                pq.write_table(table, scratch)
        return written

    def _read_back(
        self, feast: FeatureStore, published: Mapping[_View, pa.Table], rows: HistoryRows, window: int
    ) -> None:
        """Compare what the online store serves with what was published, on evenly spaced keys."""
        for view, table in published.items():
            places = np.unique(np.linspace(0, len(table) - 1, min(len(table), _CHECKED_KEYS), dtype=np.int64))
            sample = table.take(pa.array(places))
            for start in range(0, len(sample), _READ_KEYS):
                part = sample.slice(start, _READ_KEYS)
                wrong = _wrong_histories(rows, part, window) if view is _HISTORY else _wrong_columns(feast, view, part)
                if wrong:
                    what = f"{view.name} serves other values of {', '.join(wrong)} than were published"
                    raise UserError(what, where=self._folder, fix="push again; look for a second writer")


def _online_tables(tables: FeatureTables, moment: datetime) -> dict[_View, pa.Table]:
    now = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
    return {
        _HISTORY: _with_column(_with_arrival(tables.histories), "created", now),
        _OUTPUT: _with_column(tables.model_outputs, "event_timestamp", now),
        _ITEMS: _with_column(tables.item_statistics, "event_timestamp", now),
    }


def _with_arrival(histories: pa.Table) -> pa.Table:
    """Return histories in the view's columns: times in microseconds, and no id of a live event."""
    times = histories["event_times"].cast(pa.list_(pa.int64()))
    ids = pa.chunked_array(
        [
            pa.ListArray.from_arrays(chunk.offsets, pa.repeat("", len(chunk.values)))
            for chunk in histories["item_ids"].chunks
        ],
        pa.list_(pa.string()),
    )
    columns = [histories["user_id"], histories["item_ids"], times, ids, histories["event_timestamp"]]
    return pa.table(columns, names=["user_id", "item_ids", "event_times", "event_ids", "event_timestamp"])


def _with_column(table: pa.Table, name: str, value: pa.Scalar) -> pa.Table:
    return table.append_column(name, pa.repeat(value, len(table)))


def _require_window(histories: pa.Table, window: int) -> None:
    longest = pc.max(pc.list_value_length(histories["item_ids"])).as_py() or 0
    if longest > window:
        what = f"histories of up to {longest} items, but {_HISTORY.name} keeps {window}"
        raise UserError(what, fix="lower sequences.history, or raise WINDOW in the Feast repository's views.py")


def _history_rows(feast: FeatureStore) -> tuple[HistoryRows, int]:
    """Return the rows of live histories and how many events each of them keeps."""
    try:
        view: FeatureView = feast.get_feature_view(_HISTORY.name)
    except FeatureViewNotFoundException as error:
        raise UserError("no histories were published to this store", fix="run `elcrec push` first") from error
    return open_rows(feast.config, view), int(view.tags["window"])


def _histories(table: pa.Table) -> dict[str, History]:
    columns = [table[name].to_pylist() for name in ("user_id", "item_ids", "event_times", "event_ids")]
    return {
        user_id: History(item_ids=item_ids, times=times, event_ids=ids)
        for user_id, item_ids, times, ids in zip(*columns, strict=True)
    }


def _publish_histories(rows: HistoryRows, chunk: pa.Table, window: int) -> None:
    published = _histories(chunk)

    def change(user_id: str, found: History) -> History:
        return merge_publication(found, published[user_id], window)

    rows.update(list(published), change, Entry(published=True))


def _load(feast: FeatureStore, view: _View, chunk: pa.Table) -> None:
    with _errors(), quiet("feast"):
        feast.write_to_online_store(view.name, df=chunk.to_pandas())


def _record(feast: FeatureStore, view: _View, table: pa.Table) -> None:
    """Tell the registry what was loaded, as Feast's own materialisation does."""
    times = table["event_timestamp"].to_numpy()
    start, end = (moment.astype("datetime64[us]").item().replace(tzinfo=UTC) for moment in (times.min(), times.max()))
    with _errors(), quiet("feast"):
        found = feast.get_feature_view(view.name)
        feast.registry.apply_materialization(found, feast.project, start - _MARGIN, end + _MARGIN)


def _wrong_histories(rows: HistoryRows, part: pa.Table, window: int) -> list[str]:
    """A history is right where publishing it again would change nothing."""
    published = _histories(part)
    found = rows.read(list(published))
    wrong = [
        user_id
        for user_id, history in published.items()
        if user_id not in found or merge_publication(found[user_id], history, window) != found[user_id]
    ]
    return list(_HISTORY.witnesses) if wrong else []


def _wrong_columns(feast: FeatureStore, view: _View, part: pa.Table) -> list[str]:
    expected = part.select([view.key, *view.witnesses]).to_pydict()
    with _errors(), quiet("feast"):
        served = feast.get_online_features(
            features=[f"{view.name}:{column}" for column in view.witnesses],
            entity_rows=[{view.key: key} for key in expected[view.key]],
        ).to_dict()
    return [column for column in view.witnesses if served[column] != expected[column]]


def _user_features(columns: dict[str, list[Any]], row: int, *, fresh: bool) -> UserFeatures | None:
    if not columns["item_ids"][row]:
        return None
    intent = columns["intent"][row] if fresh else None
    times = [instant(time) for time in columns["event_times"][row]]
    return UserFeatures(
        item_ids=columns["item_ids"][row],
        event_times=times,
        intent=None if intent is None or intent < 0 else intent,
        vector=(columns["vector"][row] or []) if fresh else [],
        bundle=columns["bundle"][row] if fresh else None,
    )


@contextmanager
def _errors() -> Iterator[None]:
    try:
        with redis_errors():
            yield
    except FeastError as error:
        raise UserError(f"Feast: {error}", fix="run `elcrec push` again") from error
    except SQLAlchemyError as error:
        what = f"the feature registry does not answer ({type(error).__name__})"
        raise StoreUnavailable(what, fix="check FEAST_REGISTRY, or the store folder where it is not set") from error
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the online store does not answer ({error})", fix="try again") from error
