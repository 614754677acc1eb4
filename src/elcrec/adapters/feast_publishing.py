"""What a push publishes: the offline files, the rows of the online store, and the proof that it serves them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore

from elcrec.adapters.feast_errors import feast_errors
from elcrec.adapters.online_rows import Entry, HistoryRows
from elcrec.adapters.quiet import quiet
from elcrec.artifacts import atomic_file
from elcrec.data.forgotten import Forgotten
from elcrec.errors import UserError
from elcrec.serving.histories import MAX_SEEN, PUBLISHED, UNITS, History, merge_publication
from elcrec.serving.ports import FeatureTables

logger = logging.getLogger(__name__)

Merge = Callable[[History, History], History]
"""From the history that a user has and the one that is published to the history that she has then."""

_MARGIN = timedelta(days=1)
_TIME = pa.timestamp("us", tz="UTC")
_GROUP_ROWS = 65_536
_CHECKED_KEYS = 5000
_READ_KEYS = 500


@dataclass(frozen=True, kw_only=True)
class View:
    """A feature view, the file behind it, and the columns that prove that it was loaded."""

    name: str
    file: str
    key: str
    witnesses: tuple[str, ...]


HISTORY = View(name="user_history", file="history_rows.parquet", key="user_id", witnesses=("item_ids",))
OUTPUT = View(name="user_model_output", file="model_outputs.parquet", key="user_id", witnesses=("intent", "bundle"))
ITEMS = View(name="item_statistics", file="item_statistics.parquet", key="item_id", witnesses=("count", "total"))
SERVED_FILE = "histories.parquet"
"""Everybody's history at the last push, a row a user."""


def write_offline(
    tables: FeatureTables, moment: datetime, folder: Path, forgotten: Forgotten, abandoned: datetime | None = None
) -> dict[str, Path]:
    """Write the offline files into `folder`: what is served, and for training what held at every moment before.

    Histories are those of the log, a row an event. Outputs and statistics are added to those of earlier publications,
    but for one of the moment `abandoned`.
    """
    served, without = online_tables(tables, moment), pa.array([moment, abandoned], _TIME).drop_null()
    files = {view.name: folder / view.file for view in served} | {SERVED_FILE: folder / SERVED_FILE}
    with atomic_file(files[SERVED_FILE]) as scratch:
        pq.write_table(served[HISTORY], scratch)
    with atomic_file(files[HISTORY.name]) as scratch:
        _write(scratch, _over_time(tables, served[HISTORY], forgotten))
    for view, table in served.items():
        if view is not HISTORY:
            with atomic_file(files[view.name]) as scratch:
                _write(scratch, chain(_published_before(files[view.name], without, table.schema), [table]))
    return files


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema; the same tables give the same bytes."""
    rest = iter(tables)
    first = next(rest)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], rest):
            writer.write_table(table, row_group_size=_GROUP_ROWS)


def _over_time(tables: FeatureTables, served: pa.Table, forgotten: Forgotten) -> Iterator[pa.Table]:
    """Yield the rows of the histories' view; of a user's rows with one event time, the later is created later."""
    yield served
    moment = served["created"][0]
    for table in tables.earlier:
        gone = forgotten.rows(table["user_id"], table["event_timestamp"])
        kept = _with_arrival(table.filter(~gone) if gone.any() else table)
        ages = pa.array(np.arange(len(kept), 0, -1), pa.duration("us"))
        yield kept.append_column("created", pc.subtract(moment, ages)).cast(served.schema)


def _published_before(path: Path, without: pa.Array, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield what publications have left, but for those of some moments, which were broken off."""
    if not path.exists():
        return
    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema):
            logger.warning("%s has other columns than are published now: it begins anew", path.name)
            return
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            earlier = table.filter(pc.invert(pc.is_in(table["event_timestamp"], without)))
            if len(earlier):
                yield earlier


def published_at(folder: Path) -> datetime | None:
    """Return the moment of the last publication whose offline files lie in a folder, where they tell it."""
    try:
        created = pq.read_table(folder / SERVED_FILE, columns=["created"])["created"]
    except (OSError, pa.ArrowException, KeyError):  # none yet, or one that this publication replaces
        return None
    return pc.max(created).as_py()  # type: ignore[no-any-return]


def last_items(path: Path) -> frozenset[str]:
    """Return the items of the last publication in a file of statistics."""
    table = pq.read_table(path, columns=["item_id", "event_timestamp"])
    last = pc.equal(table["event_timestamp"], pc.max(table["event_timestamp"]))
    return frozenset(table["item_id"].filter(last).to_pylist())


def read_back(feast: FeatureStore, published: Mapping[View, pa.Table], rows: HistoryRows, merge: Merge) -> None:
    """Compare what the online store serves with what was published, on evenly spaced keys.

    Raises:
        UserError: it serves something else.
    """
    for view, table in published.items():
        places = np.unique(np.linspace(0, len(table) - 1, min(len(table), _CHECKED_KEYS), dtype=np.int64))
        sample = table.take(pa.array(places))
        for start in range(0, len(sample), _READ_KEYS):
            part = sample.slice(start, _READ_KEYS)
            wrong = _wrong_histories(rows, part, merge) if view is HISTORY else _wrong_columns(feast, view, part)
            if wrong:
                what = f"{view.name} serves other values of {', '.join(wrong)} than were published"
                raise UserError(what, fix="push again; look for a second writer")


def online_tables(tables: FeatureTables, moment: datetime) -> dict[View, pa.Table]:
    """Return what is served, in the columns of each view."""
    now = pa.scalar(moment, _TIME)
    served = {HISTORY: _with_column(_with_arrival(tables.histories), "created", now)}
    others = {OUTPUT: tables.model_outputs, ITEMS: tables.item_statistics}
    return served | {
        view: _with_column(table, "event_timestamp", now) for view, table in others.items() if table is not None
    }


def without_forgotten(tables: FeatureTables, forgotten: Forgotten) -> FeatureTables:
    """Return what is served without users who were forgotten after they did what the tables say."""
    gone = forgotten.rows(tables.histories["user_id"].cast(pa.string()), tables.histories["event_timestamp"])
    if not gone.any():
        return tables
    users = pc.unique(tables.histories["user_id"].filter(gone))
    outputs = tables.model_outputs
    return replace(
        tables,
        histories=tables.histories.filter(~gone),
        model_outputs=None if outputs is None else _without(outputs, users),
    )


def _without(table: pa.Table, users: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["user_id"], users)))


def merge_of(tables: FeatureTables, window: int) -> Merge:
    """Return how a publication of `tables` changes a history."""
    known = None if tables.item_statistics is None else frozenset(tables.item_statistics["item_id"].to_pylist())
    resolution = _resolution(tables.histories["event_times"])

    def merge(found: History, published: History) -> History:
        return merge_publication(found, published, window, resolution=resolution, knows=known)

    return merge


def _resolution(times: pa.ChunkedArray) -> int:
    """Return the largest usual unit, in microseconds, that all times are whole multiples of."""
    flat = pc.list_flatten(times).cast(pa.int64()).to_numpy()
    return next(unit for unit in UNITS if not (flat % unit).any())


def _with_arrival(histories: pa.Table) -> pa.Table:
    """Return histories in the view's columns: times in microseconds, and ids as a log's."""
    times = histories["event_times"].cast(pa.list_(pa.int64()))
    offsets = pa.array(np.zeros(len(histories) + 1, np.int32))
    nothing = pa.ListArray.from_arrays(offsets, pa.array([], pa.string()))
    seen = histories["seen_items"] if "seen_items" in histories.column_names else pa.chunked_array([nothing])
    columns = [histories["user_id"], histories["item_ids"], times, _keys(histories), seen, histories["event_timestamp"]]
    return pa.table(columns, names=["user_id", "item_ids", "event_times", "event_ids", "seen_items", "event_timestamp"])


def _keys(histories: pa.Table) -> pa.ChunkedArray:
    """Return the key of each event, a list a row."""
    if "event_ids" not in histories.column_names:
        lists = histories["item_ids"].chunks
        keys = [pa.repeat("", len(each.values)) for each in lists]
    else:
        lists = histories["event_ids"].chunks
        keys = [_published_keys(each.values) for each in lists]
    chunks = [pa.ListArray.from_arrays(each.offsets, flat) for each, flat in zip(lists, keys, strict=True)]
    return pa.chunked_array(chunks, pa.list_(pa.string()))


def _published_keys(ids: pa.Array) -> pa.Array:
    ids = pc.fill_null(ids, "")
    marked = pc.binary_join_element_wise(pa.scalar(PUBLISHED), ids, pa.scalar(""))
    return pc.if_else(pc.equal(ids, ""), "", marked)


def _with_column(table: pa.Table, name: str, value: pa.Scalar) -> pa.Table:
    return table.append_column(name, pa.repeat(value, len(table)))


def require_window(histories: pa.Table, window: int) -> None:
    """Check that every history fits the view.

    Raises:
        UserError: one is longer than `window`.
    """
    longest = pc.max(pc.list_value_length(histories["item_ids"])).as_py() or 0
    if longest > window:
        what = f"histories of up to {longest} items, but {HISTORY.name} keeps {window}"
        raise UserError(what, fix="lower sequences.history, or raise WINDOW in the Feast repository's views.py")


def _histories(table: pa.Table) -> dict[str, History]:
    columns = [table[name].to_pylist() for name in ("user_id", "item_ids", "event_times", "event_ids", "seen_items")]
    return {
        user_id: History(item_ids=item_ids, times=times, event_ids=ids, seen=list(dict.fromkeys(seen))[-MAX_SEEN:])
        for user_id, item_ids, times, ids, seen in zip(*columns, strict=True)
    }


def publish_histories(rows: HistoryRows, chunk: pa.Table, merge: Merge) -> None:
    """Merge histories into the online store."""
    published = _histories(chunk)

    def change(user_id: str, found: History) -> History:
        return merge(found, published[user_id])

    rows.update(list(published), change, Entry(published=True))


def load(feast: FeatureStore, view: View, chunk: pa.Table) -> None:
    """Write rows of a view that no live event changes."""
    with feast_errors(), quiet("feast"):
        feast.write_to_online_store(view.name, df=chunk.to_pandas())


def record(feast: FeatureStore, view: View, table: pa.Table) -> None:
    """Tell the registry what was loaded, as Feast's own materialisation does."""
    times = table["event_timestamp"].to_numpy()
    start, end = (moment.astype("datetime64[us]").item().replace(tzinfo=UTC) for moment in (times.min(), times.max()))
    with feast_errors(), quiet("feast"):
        found = feast.get_feature_view(view.name)
        feast.registry.apply_materialization(found, feast.project, start - _MARGIN, end + _MARGIN)


def _wrong_histories(rows: HistoryRows, part: pa.Table, merge: Merge) -> list[str]:
    """A history is right where publishing it again would change nothing."""
    published = _histories(part)
    found = rows.read(list(published))
    wrong = [
        user_id
        for user_id, history in published.items()
        if user_id not in found or merge(found[user_id], history) != found[user_id]
    ]
    return list(HISTORY.witnesses) if wrong else []


def _wrong_columns(feast: FeatureStore, view: View, part: pa.Table) -> list[str]:
    expected = part.select([view.key, *view.witnesses]).to_pydict()
    with feast_errors(), quiet("feast"):
        served = feast.get_online_features(
            features=[f"{view.name}:{column}" for column in view.witnesses],
            entity_rows=[{view.key: key} for key in expected[view.key]],
        ).to_dict()
    return [column for column in view.witnesses if served[column] != expected[column]]
