"""Feast as the feature store: definitions from the repository folder, data under the store folder."""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from elcrec.adapters.quiet import quiet
from elcrec.artifacts import atomic_file
from elcrec.errors import UserError
from elcrec.serving.ports import Event, FeatureTables, PushOutcome, UserFeatures

with quiet("feast"):
    from feast import FeatureStore
    from feast.errors import FeastError, FeatureServiceNotFoundException
    from feast.repo_config import load_repo_config
    from feast.repo_operations import extract_objects_for_apply_delete, parse_repo


def _mute_stderr() -> None:
    """DuckDB's binding lists dozens of "leaked" objects when a process ends that has loaded torch as well."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


# First registered is last called: whatever other exit handlers have to say is still heard.
atexit.register(_mute_stderr)

_DEFINITION_FILE = "feature_store.yaml"
_SQLITE = "sqlite:///"
_MARGIN = timedelta(days=1)
_CHECKED_KEYS = 5000
_READ_KEYS = 500


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
    """A `FeatureStore` on Feast, in process."""

    def __init__(self, store: Path, repository: Path) -> None:
        """Take the store folder and the Feast repository (feature_store.yaml and definitions)."""
        self._store_folder = store
        self._repository = repository

    def publish(self, tables: FeatureTables, *, service: str) -> dict[str, int]:
        """See `FeatureStore`. The offline files are replaced, then all of their rows are loaded online.

        Raises:
            UserError: as `FeatureStore.publish`, or the repository is not sound.
        """
        now = pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC"))
        published = {
            _HISTORY: _with_column(tables.histories, "created", now),
            _OUTPUT: _with_column(tables.model_outputs, "event_timestamp", now),
            _ITEMS: _with_column(tables.item_statistics, "event_timestamp", now),
        }
        with _feast():
            for view, table in published.items():
                with atomic_file(self._folder / "data" / view.file) as scratch:
                    pq.write_table(table, scratch)
            self._apply()
            self._require_service(service)
            for view, table in published.items():
                self._materialise(view, table)
        for view, table in published.items():
            self._read_back(view, table)
        return {view.name: len(table) for view, table in published.items()}

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """See `FeatureStore`.

        Raises:
            UserError: `service` was never published to this store.
        """
        with _feast():
            self._require_service(service)
            features = self._feast.get_feature_service(service)
            rows = [{"user_id": user_id} for user_id in user_ids]
            columns = self._feast.get_online_features(features=features, entity_rows=rows).to_dict()
        return [_user_features(columns, row) for row in range(len(user_ids))]

    def push_events(self, events: Sequence[Event]) -> PushOutcome:
        """See `FeatureStore`."""
        duplicates = late = 0
        rows = []
        for user_id in dict.fromkeys(event.user_id for event in events):
            (known,) = self.users([user_id], service="elcrec_v1")
            history = list(zip(known.event_times, known.item_ids, strict=True)) if known else []
            for event in (event for event in events if event.user_id == user_id):
                entry = (event.timestamp, event.item_id)
                duplicates += entry in history
                late += bool(history) and entry not in history and entry[0] < history[-1][0]
                history = sorted({*history, entry})[-50:]
            now, times = datetime.now(UTC), [time for time, _ in history]
            row = {"user_id": user_id, "item_ids": [item for _, item in history], "event_times": times}
            rows.append(row | {"event_timestamp": max(times[-1], now), "created": now})
        with _feast():
            self._feast.push("history_events", pa.Table.from_pylist(rows).to_pandas())
        return PushOutcome(accepted=len(events) - duplicates, duplicates=duplicates, late=late, users=len(rows))

    def check(self, service: str) -> None:
        """See `FeatureStore`."""
        self._feast.refresh_registry()
        self._require_service(service)

    @property
    def _folder(self) -> Path:
        return self._store_folder / "feast"

    @cached_property
    def _feast(self) -> FeatureStore:
        source = self._repository / _DEFINITION_FILE
        if not source.is_file():
            fix = "run in the project's folder or set ELCREC_FEATURES to the Feast repository"
            raise UserError("no Feast repository", where=source, fix=fix)
        self._folder.mkdir(parents=True, exist_ok=True)
        own = self._folder / _DEFINITION_FILE
        with atomic_file(own) as scratch:
            scratch.write_text(_relocated(source.read_text(encoding="utf-8"), self._folder), encoding="utf-8")
        return FeatureStore(config=load_repo_config(self._repository, own))

    def _apply(self) -> None:
        """Bring the registry to the repository's definitions, with sources in this store."""
        feast = self._feast
        with _definitions(self._repository, self._store_folder):
            definitions = parse_repo(self._repository)
        # Not Feast's planned apply: its plan holds the online store's old path, so that a push into a copied
        # store would drop the tables of the original.
        wanted, unwanted, _, _ = extract_objects_for_apply_delete(feast.project, feast.registry, definitions)
        feast.apply(wanted, objects_to_delete=unwanted, partial=False)
        feast.refresh_registry()

    def _require_service(self, service: str) -> None:
        try:
            self._feast.get_feature_service(service)
        except FeatureServiceNotFoundException as error:
            fix = f"define it in {self._repository} (push.feature_service names it) and push"
            what = f"feature service {service!r} is unknown"
            raise UserError(what, where=self._folder, fix=fix) from error

    def _materialise(self, view: _View, table: pa.Table) -> None:
        """Load all rows: the range is the table's own, because benchmark logs have times of 1970."""
        times = table["event_timestamp"].to_numpy()
        start, end = (
            moment.astype("datetime64[us]").item().replace(tzinfo=UTC) for moment in (times.min(), times.max())
        )
        self._feast.materialize(start - _MARGIN, end + _MARGIN, feature_views=[view.name])

    def _read_back(self, view: _View, table: pa.Table) -> None:
        """Compare what the online store serves with what was published, on evenly spaced keys."""
        rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), _CHECKED_KEYS), dtype=np.int64))
        sample = table.select([view.key, *view.witnesses]).take(pa.array(rows))
        for start in range(0, len(sample), _READ_KEYS):
            expected = sample.slice(start, _READ_KEYS).to_pydict()
            with _feast():
                served = self._feast.get_online_features(
                    features=[f"{view.name}:{column}" for column in view.witnesses],
                    entity_rows=[{view.key: key} for key in expected[view.key]],
                ).to_dict()
            wrong = [column for column in view.witnesses if served[column] != expected[column]]
            if wrong:
                what = f"{view.name} serves other values of {', '.join(wrong)} than were published"
                raise UserError(what, where=self._folder, fix="push again; look for a second writer")


def _with_column(table: pa.Table, name: str, value: pa.Scalar) -> pa.Table:
    return table.append_column(name, pa.repeat(value, len(table)))


def _user_features(columns: dict[str, list[Any]], row: int) -> UserFeatures | None:
    if not columns["item_ids"][row]:
        return None
    intent = columns["intent"][row]
    return UserFeatures(
        item_ids=columns["item_ids"][row],
        event_times=columns["event_times"][row],
        intent=None if intent is None or intent < 0 else intent,
        vector=columns["vector"][row] or [],
        bundle=columns["bundle"][row],
    )


def _relocated(text: str, folder: Path) -> str:
    """Move the relative SQLite paths of a feature_store.yaml into `folder`."""
    document = yaml.safe_load(os.path.expandvars(text))
    registry, online = document["registry"], document["online_store"]
    path = registry["path"].removeprefix(_SQLITE)
    if path != registry["path"] and not path.startswith("/"):
        registry["path"] = f"{_SQLITE}{folder / Path(path).name}"
    if online["type"] == "sqlite" and not Path(online["path"]).is_absolute():
        online["path"] = str(folder / Path(online["path"]).name)
    return yaml.safe_dump(document, sort_keys=False)


@contextmanager
def _definitions(repository: Path, store: Path) -> Iterator[None]:
    """Let Feast import a repository's flat modules afresh, bound to `store`, and leave no trace of it."""
    names = {path.stem for path in repository.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    before = os.environ.get("ELCREC_STORE")
    os.environ["ELCREC_STORE"] = str(store)
    sys.path.insert(0, str(repository))
    try:
        with chdir(repository):
            yield
    finally:
        sys.path.remove(str(repository))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
        os.environ.pop("ELCREC_STORE")
        if before is not None:
            os.environ["ELCREC_STORE"] = before


@contextmanager
def _feast() -> Iterator[None]:
    try:
        with quiet("feast"):
            yield
    except FeastError as error:
        raise UserError(f"Feast: {error}", fix="run `elcrec push` again") from error
