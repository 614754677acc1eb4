"""Feast as the feature store: definitions in the repository folder, data in the store folder or on servers."""

import logging
import threading
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from elcrec.adapters.quiet import quiet
from elcrec.artifacts import FORGOTTEN_FILE, file_version
from elcrec.data.erasure import erase_from_parquet
from elcrec.data.forgotten import Forgotten
from elcrec.errors import UserError
from elcrec.serving.histories import EventOutcome, History, add_events, instant, require_valid
from elcrec.serving.ports import (
    PUSH_FIRST,
    Event,
    EventLog,
    FeatureTables,
    PushOutcome,
    StoreReplaced,
    StoreUnavailable,
    UserFeatures,
    UserHistory,
)

with quiet("feast"):
    from feast import FeatureService, FeatureStore, FeatureView
    from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
    from feast.infra.online_stores.redis import RedisOnlineStore

    from elcrec.adapters.checked_services import note_checked
    from elcrec.adapters.event_log import RedisEventLog, SqliteEventLog
    from elcrec.adapters.feast_config import FeastConfig, Servers, file_lock
    from elcrec.adapters.feast_definitions import definitions_for, published_schema, repository_schema
    from elcrec.adapters.feast_errors import feast_errors
    from elcrec.adapters.feast_publishing import (
        Merge,
        load,
        merge_of,
        publish_histories,
        read_back,
        record,
        require_window,
    )
    from elcrec.adapters.feast_registry import (
        file_sources,
        forget_removed_views,
        history_source,
        name_store,
        named,
        was_published,
    )
    from elcrec.adapters.feast_spark import by_spark, materialize
    from elcrec.adapters.history_rows import Entry, HistoryRows
    from elcrec.adapters.idle_users import IdleUsers
    from elcrec.adapters.offline_files import (
        HISTORY,
        ITEMS,
        OUTPUT,
        SERVED_FILE,
        StoredRows,
        View,
        last_items,
        parts,
        published_at,
        stored_rows,
        survey,
        write_offline,
    )
    from elcrec.adapters.online_rows import open_rows
    from elcrec.adapters.publication import Publication

logger = logging.getLogger(__name__)

_USERS_AT_ONCE = 200
"""Number of users whose events are written together: small enough for readers' timeouts and short transactions."""


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A store that is open for readers and for events.

    Attributes:
        files: identities of the files of the online store and the registry; `None` on a server.
        identity: the name of the online store; `None` if it has none yet.
        lifetime: time to live of model outputs, in seconds.
    """

    feast: FeatureStore
    identity: str | None
    files: "_Identities"
    readable: HistoryRows
    writable: HistoryRows
    window: int
    lifetime: float


class FeastStore:
    """A `FeatureStore` on Feast, in process. Threads may share it, and other processes may use the same store."""

    def __init__(self, store: Path, repository: Path, servers: Servers | None = None) -> None:
        """Take the store folder, the Feast repository (feature_store.yaml and definitions) and servers, if any."""
        self._store_folder = store
        self._folder = store / "feast"
        self._config = FeastConfig(repository=repository, folder=self._folder, servers=servers or Servers())
        self._services: dict[str, FeatureService] = {}
        self._opened: _Opened | None = None
        self._items: tuple[tuple[int, ...] | None, frozenset[str] | None] = None, None
        self._list: tuple[tuple[int, ...] | None, Forgotten] = None, Forgotten()
        self._opening = threading.Lock()

    def publish(self, tables: FeatureTables, *, service: str, idle_days: int = 0) -> dict[str, int]:
        """See `FeatureStore`. The offline files are replaced, then loaded online in chunks.

        Raises:
            UserError: as `FeatureStore.publish`; or the repository is invalid, histories are longer than the view's
                window, or another process is publishing.
            StoreUnavailable: the online store or the registry does not answer.
        """
        with self._publishing():
            forgotten = self._forgotten()
            found = survey(tables, forgotten)
            with feast_errors(), quiet("feast"):
                feast = self._open(patient=True)
                self._apply(feast)
            self._require_service(feast, service)
            rows, window = _history_rows(feast)
            identity = name_store(feast, rows.identity())
            require_window(found.longest, window)
            idle = IdleUsers.find(parts(tables.histories), found.newest, idle_days, rows)
            publication = Publication.begin(
                self._folder / "publication.json",
                # With another number of days, rows that were left out before are not done.
                self._config.target() + (f" idle_days={idle_days}" if idle_days else ""),
                lambda moment, left: write_offline(
                    tables, moment, self._folder / "data", forgotten, found.gone, abandoned=left
                ),
                last=published_at(self._folder / "data"),
            )
            published = stored_rows(tables, self._folder / "data", publication.moment)
            merge = merge_of(tables, found, window)
            counts = {view.name: _count(stored, view, idle) for view, stored in published.items()}
            at_once = {view: stored for view, stored in published.items() if _goes_by_spark(feast, view, idle)}
            publication.whole(
                {view.name: stored.count for view, stored in at_once.items()},
                lambda views, moment: materialize(feast, views, moment),
            )
            for view, stored in published.items():
                if view in at_once:
                    continue
                with stored.reader(publication.done.get(view.name, 0)) as reader:
                    for part in publication.chunks(view.name, stored.count):
                        chunk = reader.read(part.stop - part.start)
                        _load(feast, rows, view, chunk.filter(pa.array(idle.published(chunk))), merge)
            idle.remove(rows)
            publication.finish()
            for view, stored in published.items():
                record(feast, view, stored)
            read_back(feast, published, rows, merge, idle.active_in_log)
            rows.name(identity)
            self._note(feast, [each.name for each in feast.list_feature_services()])
        self._opened = None
        return counts

    def forget(self, user_id: str) -> dict[str, int]:
        """See `FeatureStore`. The log is last, because it makes the server rewrite its own files."""
        data = self._folder / "data"
        with self._publishing():
            names = (SERVED_FILE, HISTORY.file, OUTPUT.file)
            files = [path for name in names if (path := data / name).exists()]
            offline = sum(erase_from_parquet(path, user_id) for path in files)
            return {
                "offline_rows": offline,
                "online_rows": self._current().writable.forget(user_id),
                "logged_events": self.event_log.forget(user_id),
            }

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """See `FeatureStore`. A model output older than its view's TTL is left out.

        Raises:
            UserError: `service` was never published to this store.
            StoreUnavailable: the online store does not answer.
        """
        if not user_ids:
            return []
        opened = self._open_for(service)
        with self._replacement_noticed():
            opened.readable.read(user_ids[:1])  # Feast would read any existing store
        with feast_errors():
            features = self._services[service]
            response = opened.feast.get_online_features(features=features, entity_rows={"user_id": list(user_ids)})
        names = list(response.proto.metadata.feature_names.val)
        computed = response.proto.results[names.index("bundle")].event_timestamps
        columns, oldest = response.to_dict(), datetime.now(UTC).timestamp() - opened.lifetime
        return [_user_features(columns, row, fresh=computed[row].seconds >= oldest) for row in range(len(user_ids))]

    def histories(self, user_ids: Sequence[str], *, service: str) -> list[UserHistory | None]:
        """See `FeatureStore`. Reads Feast's rows directly, in a third of the time of Feast's own retrieval.

        Raises:
            UserError: `service` was never published to this store.
            StoreUnavailable: the online store does not answer.
        """
        opened = self._open_for(service)
        with self._replacement_noticed():
            found = opened.readable.read(user_ids)
        return [
            None
            if history is None
            else UserHistory(
                item_ids=history.item_ids,
                updated=instant(history.times[-1]) if history.times else None,
                seen=history.seen,
            )
            for history in map(found.get, user_ids)
        ]

    def push_events(
        self,
        events: Sequence[Event],
        *,
        new_users: int | None = None,
        knows: Container[str] | None = None,
        dislikes: Container[str] = (),
        logged: bool = False,
    ) -> PushOutcome:
        """See `FeatureStore`.

        The event log is written last, so that refused users leave nothing in it. If the log or this process fails,
        events that were not logged were not acknowledged either: when they are sent again, the history recognises them
        and they reach the log.

        Raises:
            UserError: an event is not valid, or nothing was published to this store yet.
            StoreUnavailable: the online store does not answer.
        """
        now, forgotten, by_user = datetime.now(UTC), self._forgotten(), dict[str, list[Event]]()
        for number, event in enumerate(events, start=1):
            require_valid(event, now=now, where=f"event {number}")
        kept = [event for event in events if not forgotten.holds(event.user_id, event.timestamp)]
        for event in kept:
            by_user.setdefault(event.user_id, []).append(event)
        opened, catalogue = self._current(), self._published_items() if knows is None else knows
        outcomes: dict[str, Counter[EventOutcome]] = {}

        def change(user_id: str, history: History) -> History:
            history, outcomes[user_id] = add_events(
                history, by_user[user_id], opened.window, knows=catalogue, dislikes=dislikes
            )
            return history

        users, refused = list(by_user), set[str]()
        for start in range(0, len(users), _USERS_AT_ONCE):
            with self._replacement_noticed():
                refused |= opened.writable.update(users[start : start + _USERS_AT_ONCE], change, Entry(most=new_users))
        taken = [] if logged else [event for event in kept if event.user_id not in refused]
        if taken:
            self.event_log.append(taken)
        total = sum((outcomes[user_id] for user_id in users if user_id not in refused), Counter())
        counts = {"accepted": EventOutcome.ACCEPTED, "duplicates": EventOutcome.DUPLICATE, "late": EventOutcome.LATE}
        return PushOutcome(
            **{name: total[outcome] for name, outcome in counts.items()},
            refused=len(events) - len(kept) + sum(len(by_user[user_id]) for user_id in refused),
            users=len({event.user_id for event in events}),
        )

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        busy = StoreUnavailable("another push is publishing", where=self._folder, fix="try again when it is done")
        with file_lock(self._folder / "publish.lock", otherwise=busy):
            yield

    def _forgotten(self) -> Forgotten:
        """Return the forgotten users; the list is read again when it has changed."""
        path = self._store_folder / FORGOTTEN_FILE
        version = file_version(path)
        if version != self._list[0]:
            self._list = version, Forgotten.load(path)
        return self._list[1]

    def _published_items(self) -> frozenset[str] | None:
        """Return the items of the last publication, `None` if its files are on another machine."""
        path = self._folder / "data" / ITEMS.file
        version = file_version(path)
        if version != self._items[0]:
            items = None if version is None else last_items(path)
            self._items = version, items
        return self._items[1]

    def training_data(self, asked: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
        """Return features as they were at given moments, with Feast's `get_historical_features`; ids may be integers.

        Args:
            asked: `event_timestamp` and the raw ids `user_id` or `item_id`; other columns are passed through.
            features: names such as `user_history:item_ids`.

        Raises:
            UserError: nothing was published to this store, or it has no such feature.
        """
        # Feast cannot match a column of integers with the ids of the store, which are text.
        keys = {key: asked[key].dtype for key in ("user_id", "item_id") if key in asked.columns}
        with feast_errors(), quiet("feast"):
            texts = asked.astype(dict.fromkeys(keys, "str"))
            found: pd.DataFrame = self._feast.get_historical_features(texts, list(features)).to_df()
        return found.astype(keys)

    def check(self, service: str, schema: str | None = None) -> None:
        """See `FeatureStore`. Readers then see what other processes have applied since the last check.

        Raises:
            UserError: the service is missing or differs.
            StoreUnavailable: the registry does not answer.
        """
        with feast_errors(), quiet("feast"):
            feast = self._current().feast
            feast.refresh_registry()
            found = self._require_service(feast, service)
            different = schema is not None and published_schema(feast, found) != schema
            if named(feast) != self._current().identity:
                self._opened = None
                self._current()
            self._note(feast, [service])
        if different:
            fix = "push the model again, or apply the definitions with which it was made under another version"
            what = f"feature service {service!r} has a schema other than the one with which the model was made"
            raise UserError(what, where=self._folder, fix=fix)
        self._services[service] = found

    def schema(self, service: str) -> str:
        """See `FeatureStore`.

        Raises:
            UserError: the repository does not define it, or is invalid.
        """
        self._config.require()
        with feast_errors(), quiet("feast"):
            digest = repository_schema(self._config.repository, service)
        if digest is None:
            raise self._unknown(service)
        return digest

    @cached_property
    def event_log(self) -> EventLog:
        """See `FeatureStore`."""
        online, _ = self._files
        if online is not None:
            return SqliteEventLog(online.with_name("events.db"))
        config = self._config.load()
        with feast_errors():
            client = RedisOnlineStore()._get_client(config.online_store)  # noqa: SLF001 - created as Feast creates its own
        return RedisEventLog(client, config.project)

    @cached_property
    def _files(self) -> tuple[Path | None, Path | None]:
        return self._config.files()

    @property
    def _feast(self) -> FeatureStore:
        return self._current().feast

    def _open_for(self, service: str) -> "_Opened":
        """Return the open store, after checking that `service` exists."""
        opened = self._current()
        if service not in self._services:
            self.check(service)
            opened = self._current()
        return opened

    def _current(self) -> "_Opened":
        """Return the open store; open it again if its files were replaced.

        Raises:
            UserError: nothing was published to this store.
            StoreUnavailable: a file is missing, or the registry does not answer.
        """
        opened, files = self._opened, self._files
        if opened is not None and opened.files == _identities(files, opened.files):
            return opened
        with self._opening:
            if self._opened is None or self._opened is opened:
                self._services = {}
                self._opened = self._open_to_read(files)
            return self._opened

    def _open_to_read(self, files: tuple[Path | None, Path | None]) -> "_Opened":
        self._config.require()
        online, registry = files
        if self._opened is None and registry is not None and not registry.is_file():
            what = "no histories were published to this store"
            raise UserError(what, where=self._folder, fix=PUSH_FIRST)
        if online is not None and not online.is_file():
            raise StoreUnavailable("the online store's file is missing", where=online, fix="restore it, or push again")
        with feast_errors(), quiet("feast"):
            feast = self._open()
            self._make_own(feast)
            identity = named(feast)
            if identity is None and not was_published(feast):
                raise UserError("no histories were published to this store", fix=PUSH_FIRST)
            readable, window = _history_rows(feast, identity)
            return _Opened(
                feast=feast,
                identity=identity,
                files=_identities(files),
                readable=readable,
                # On SQLite, readers use a connection that no writer blocks.
                writable=_history_rows(feast, identity)[0],
                window=window,
                lifetime=feast.get_feature_view(OUTPUT.name).ttl.total_seconds() or float("inf"),
            )

    @contextmanager
    def _replacement_noticed(self) -> Iterator[None]:
        """If the store was replaced, open everything again at the next call."""
        try:
            yield
        except StoreReplaced:
            self._opened = None
            raise

    def _make_own(self, feast: FeatureStore) -> None:
        """In a copy of a store, make the copied registry refer to the copy's own files."""
        own = self._folder / "data" / HISTORY.file
        if self._files[1] is None or Path(history_source(feast)).parent == own.parent:
            return
        logger.warning(
            "the store was moved or copied to %s: its Feast sources now refer to this folder", self._store_folder
        )
        objects = [*feast.list_data_sources(), *feast.list_feature_views()]
        for source in file_sources(objects):
            source.file_options.uri = str(own.with_name(Path(source.path).name))
        with self._config.registry_lock():
            feast.apply(objects)
        feast.refresh_registry()

    def _open(self, *, patient: bool = False) -> FeatureStore:
        self._config.require()
        with self._config.registry_lock():
            return FeatureStore(config=self._config.load(patient=patient))

    def _apply(self, feast: FeatureStore) -> None:
        """Apply the repository's definitions to the registry, with sources in this store.

        Objects that the repository lacks stay: another version of it may serve them. `feast apply` removes them.
        """
        objects = definitions_for(self._config.repository, self._store_folder)
        with self._config.registry_lock():
            forget_removed_views(feast)
            feast.apply(objects)
        feast.refresh_registry()

    def _note(self, feast: FeatureStore, services: Sequence[str]) -> None:
        """Note the schemas of these services for quick checks without Feast."""
        registry = self._files[1]
        if registry is not None:
            found = {name: published_schema(feast, feast.get_feature_service(name)) for name in services}
            note_checked(self._folder, registry, found)

    def _require_service(self, feast: FeatureStore, service: str) -> FeatureService:
        try:
            return feast.get_feature_service(service)
        except FeatureServiceNotFoundException as error:
            raise self._unknown(service) from error

    def _unknown(self, service: str) -> UserError:
        fix = f"define it in {self._config.repository} (push.feature_service names it) and push"
        return UserError(f"feature service {service!r} is unknown", where=self._folder, fix=fix)


def _history_rows(feast: FeatureStore, identity: str | None = None) -> tuple[HistoryRows, int]:
    """Return the rows of live histories, and the number of events that each keeps."""
    try:
        view: FeatureView = feast.get_feature_view(HISTORY.name)
    except FeatureViewNotFoundException as error:
        raise UserError("no histories were published to this store", fix=PUSH_FIRST) from error
    return open_rows(feast.config, view, identity), int(view.tags["window"])


def _count(stored: StoredRows, view: View, idle: IdleUsers) -> int:
    """Return the number of published rows of a view."""
    return sum(int(idle.published(table).sum()) for table in stored.blocks(view.key))


def _goes_by_spark(feast: FeatureStore, view: View, idle: IdleUsers) -> bool:
    """Return whether Feast's Spark engine publishes a view: never histories, nor views with rows of excluded users."""
    return view is not HISTORY and by_spark(feast) and (view is ITEMS or not len(idle.expired))


def _load(feast: FeatureStore, rows: HistoryRows, view: View, chunk: pa.Table, merge: Merge) -> None:
    """Load a part of a view into the online store."""
    if not len(chunk):
        return
    if view is HISTORY:
        publish_histories(rows, chunk, merge)
    else:
        load(feast, view, chunk)


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


_Identities = tuple[tuple[int, int] | None, tuple[int, int] | None]


def _identities(files: tuple[Path | None, Path | None], before: _Identities = (None, None)) -> _Identities:
    """Return the present identities of the files; a missing registry, which readers can do without, is unchanged."""
    online, registry = (_file_identity(path) for path in files)
    return online, registry or before[1]


def _file_identity(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
