"""The offline files of a push: the rows that are served, and the values at every earlier moment, in blocks of rows."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import atomic_file
from elcrec.data.evenly import evenly_spread
from elcrec.data.forgotten import Forgotten
from elcrec.data.row_groups import RowReader, blocks
from elcrec.serving.histories import PUBLISHED, UNITS
from elcrec.serving.ports import FeatureTables

logger = logging.getLogger(__name__)

_TIME = pa.timestamp("us", tz="UTC")
_GROUP_ROWS = 65_536
_ROWS_AT_ONCE = 16_384

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class View:
    """A feature view, its file, and the columns that are compared to verify that it was loaded."""

    name: str
    file: str
    key: str
    witnesses: tuple[str, ...]


HISTORY = View(name="user_history", file="history_rows.parquet", key="user_id", witnesses=("item_ids",))
OUTPUT = View(name="user_model_output", file="model_outputs.parquet", key="user_id", witnesses=("intent", "bundle"))
ITEMS = View(name="item_statistics", file="item_statistics.parquet", key="item_id", witnesses=("count", "total"))
SERVED_FILE = "histories.parquet"
"""Every user's history at the last push, one row per user."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Figures from one pass over all histories of a publication.

    Attributes:
        longest: length of the longest history.
        newest: time of the newest event, microseconds since 1970; 0 if there is none.
        resolution: the largest usual unit, in microseconds, of which all times are whole multiples.
        gone: users who were forgotten after the events in their histories.
    """

    longest: int
    newest: int
    resolution: int
    gone: pa.Array


def survey(tables: FeatureTables, forgotten: Forgotten) -> Survey:
    """Pass over all histories, a block at a time."""
    longest, newest, units, gone = 0, 0, list(UNITS), [pa.array([], pa.string())]
    for table in parts(tables.histories):
        users = table["user_id"].cast(pa.string())
        gone.append(pc.unique(users.filter(pa.array(forgotten.rows(users, table["event_timestamp"])))))
        longest = max(longest, pc.max(pc.list_value_length(table["item_ids"])).as_py() or 0)
        times = pc.list_flatten(table["event_times"]).cast(_TIME).cast(pa.int64()).to_numpy()
        newest = max(newest, int(times.max(initial=0)))
        units = [unit for unit in units if not (times % unit).any()]
    return Survey(longest=longest, newest=newest, resolution=units[0], gone=pa.concat_arrays(gone))


def parts(tables: pa.Table | Iterable[pa.Table] | None) -> Iterator[pa.Table]:
    """Yield the tables of one table, or of several."""
    if isinstance(tables, pa.Table):
        yield tables
    elif tables is not None:
        yield from tables


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """The rows of an offline file that this publication loads into the online store: those from `first` on.

    Attributes:
        path: the file.
        first: number of rows of earlier publications before them.
        count: number of rows.
    """

    path: Path
    first: int
    count: int

    @classmethod
    def of(cls, path: Path, moment: datetime | None) -> "StoredRows":
        """Return the rows of the publication of this moment; `None` for all rows of the file."""
        total, first = pq.read_metadata(path).num_rows, 0
        if moment is not None:
            for table in blocks(path, _ROWS_AT_ONCE, ["event_timestamp"]):
                first += pc.sum(pc.not_equal(table["event_timestamp"], pa.scalar(moment, _TIME))).as_py()
        return cls(path=path, first=first, count=total - first)

    @contextmanager
    def reader(self, done: int = 0) -> Iterator[RowReader]:
        """Read the rows in order, from the first one that is not done."""
        with pq.ParquetFile(self.path) as file:
            yield RowReader(file, start=self.first + done)

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows, a block at a time; without names, with all columns."""
        return blocks(self.path, _ROWS_AT_ONCE, list(columns) or None, self.first)

    def times(self) -> tuple[datetime, datetime]:
        """Return the smallest and the largest event time."""
        found = [pc.min_max(table["event_timestamp"]).as_py() for table in self.blocks("event_timestamp")]
        return min(each["min"] for each in found), max(each["max"] for each in found)

    def evenly(self, most: int, wanted: Callable[[pa.Table], Mask]) -> Iterator[pa.Table]:
        """Yield at most `count` selected rows, evenly spaced, a few at a time."""
        total = sum(int(wanted(table).sum()) for table in self.blocks())
        chosen = evenly_spread(total, most)
        before = 0
        for table in self.blocks():
            places = np.flatnonzero(wanted(table))
            start, stop = np.searchsorted(chosen, (before, before + len(places)))
            yield table.take(pa.array(places[chosen[start:stop] - before]))
            before += len(places)


def stored_rows(tables: FeatureTables, folder: Path, moment: datetime) -> dict[View, StoredRows]:
    """Return the rows that `write_offline` wrote for the online store, by view."""
    found = {HISTORY: StoredRows.of(folder / SERVED_FILE, None)}
    others = {OUTPUT: tables.model_outputs, ITEMS: tables.item_statistics}
    return found | {
        view: StoredRows.of(folder / view.file, moment) for view, given in others.items() if given is not None
    }


def write_offline(
    tables: FeatureTables,
    moment: datetime,
    folder: Path,
    forgotten: Forgotten,
    gone: pa.Array,
    *,
    abandoned: datetime | None = None,
) -> dict[str, Path]:
    """Write the offline files into `folder`: served rows, and for training the values at every earlier moment.

    Histories come from the log, one row per event. Outputs and statistics are appended to those of earlier
    publications, except one of the moment `abandoned`. Forgotten users are in none of them.
    """
    now, without = pa.scalar(moment, _TIME), pa.array([moment, abandoned], _TIME).drop_null()
    served = (_with_column(_with_arrival(_without(part, gone)), "created", now) for part in parts(tables.histories))
    files = {SERVED_FILE: _write(folder / SERVED_FILE, served)}
    files[HISTORY.name] = _write(folder / HISTORY.file, _over_time(tables, files[SERVED_FILE], moment, forgotten))
    for view, given in ((OUTPUT, tables.model_outputs), (ITEMS, tables.item_statistics)):
        if given is not None:
            path = folder / view.file
            new = (_with_column(_without(part, gone), "event_timestamp", now) for part in parts(given))
            files[view.name] = _write(path, _after(path, without, new))
    return files


def _write(path: Path, tables: Iterable[pa.Table]) -> Path:
    """Write tables of one schema; the same tables give the same bytes."""
    rest = iter(tables)
    first = next(rest)
    with atomic_file(path) as scratch, pq.ParquetWriter(scratch, first.schema, compression="zstd") as writer:
        for table in chain([first], rest):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
    return path


def _over_time(tables: FeatureTables, served: Path, moment: datetime, forgotten: Forgotten) -> Iterator[pa.Table]:
    """Yield the rows of the histories' view; rows of a user with the same event time differ in `created`."""
    yield from blocks(served, _ROWS_AT_ONCE)
    schema = pq.read_schema(served)
    for table in tables.earlier:
        gone = forgotten.rows(table["user_id"], table["event_timestamp"])
        kept = _with_arrival(table.filter(pa.array(~gone)) if gone.any() else table)
        ages = pa.array(np.arange(len(kept), 0, -1), pa.duration("us"))
        created = pc.subtract(pa.scalar(moment, _TIME), ages)
        yield kept.append_column("created", created).cast(schema)


def _after(path: Path, without: pa.Array, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of earlier publications, except those of interrupted ones, given by moment; then the tables."""
    rest = iter(tables)
    first = next(rest)
    if path.exists():
        if pq.read_schema(path).equals(first.schema):
            for table in blocks(path, _GROUP_ROWS):
                earlier = table.filter(pc.invert(pc.is_in(table["event_timestamp"], without)))
                if len(earlier):
                    yield earlier
        else:
            logger.warning("%s has columns that differ from those published now: the file is started again", path.name)
    yield from chain([first], rest)


def published_at(folder: Path) -> datetime | None:
    """Return the moment of the last publication whose offline files are in a folder, if they show it."""
    try:
        first = next(blocks(folder / SERVED_FILE, 1, ["created"]))["created"]
    except (OSError, pa.ArrowException, KeyError):  # no file yet, or one that this publication replaces
        return None
    return pc.max(first).as_py()  # type: ignore[no-any-return]


def last_items(path: Path) -> frozenset[str]:
    """Return the items of the last publication in a file of statistics."""
    table = pq.read_table(path, columns=["item_id", "event_timestamp"])
    last = pc.equal(table["event_timestamp"], pc.max(table["event_timestamp"]))
    return frozenset(table["item_id"].filter(last).to_pylist())


def _without(table: pa.Table, gone: pa.Array) -> pa.Table:
    if not len(gone) or "user_id" not in table.column_names:
        return table
    return table.filter(pc.invert(pc.is_in(table["user_id"].cast(pa.string()), gone)))


def _with_arrival(histories: pa.Table) -> pa.Table:
    """Return histories in the view's columns: times in microseconds, and event ids marked as published."""
    histories = histories.combine_chunks()
    times = histories["event_times"].cast(pa.list_(pa.int64()))
    offsets = pa.array(np.zeros(len(histories) + 1, np.int32))
    nothing = pa.ListArray.from_arrays(offsets, pa.array([], pa.string()))
    seen = histories["seen_items"] if "seen_items" in histories.column_names else pa.chunked_array([nothing])
    columns = [histories["user_id"], histories["item_ids"], times, _keys(histories), seen, histories["event_timestamp"]]
    return pa.table(columns, names=["user_id", "item_ids", "event_times", "event_ids", "seen_items", "event_timestamp"])


def _keys(histories: pa.Table) -> pa.ChunkedArray:
    """Return the keys of the events, one list per row."""
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
