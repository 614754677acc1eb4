"""Facts about items from the items file: title, category, availability, expiry and further columns.

Axes: `V` items of a catalogue; row 0 of every array is padding.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from elcrec.data.ids import normal_ids
from elcrec.data.times import TIMESTAMP, parse_times
from elcrec.errors import UserError

COLUMNS = ("item_id", "category", "available", "available_until", "title")
NO_CATEGORY = 0
_TRUE, _FALSE = pa.array(["true", "1", "yes"]), pa.array(["false", "0", "no"])
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class ItemFacts:
    """Facts of the items of one catalogue.

    Attributes:
        categories: names by code; code 0 is no category.
        category_V: category of each item, [V + 1].
        available_V: whether an item may be shown, [V + 1].
        until_V: microseconds since 1970 from which it must not be shown, [V + 1].
        described: `title`, `category` and the file's further columns as text, V rows; `None` if there is no file.
    """

    categories: Sequence[str]
    category_V: npt.NDArray[np.int32]
    available_V: npt.NDArray[np.bool_]
    until_V: npt.NDArray[np.int64]
    described: pa.Table | None = None

    @classmethod
    def nothing(cls, num_items: int) -> Self:
        """Return the facts of a catalogue without an items file: all available, without categories."""
        return cls(
            categories=("",),
            category_V=np.zeros(num_items + 1, np.int32),
            available_V=np.ones(num_items + 1, np.bool_),
            until_V=np.full(num_items + 1, _NEVER),
        )

    def always_available(self) -> Self:
        """Return the same facts with every item always available."""
        return replace(self, available_V=np.ones_like(self.available_V), until_V=np.full_like(self.until_V, _NEVER))

    def describe(self, items: Sequence[int]) -> list[dict[str, str]]:
        """Return the known values of some items by column."""
        if self.described is None or not len(items):
            return [{} for _ in items]
        rows = self.described.take(pa.array([item - 1 for item in items]))
        return [{name: value for name, value in row.items() if value is not None} for row in rows.to_pylist()]

    def of_categories(self, names: Collection[str]) -> npt.NDArray[np.bool_]:
        """Return which items have one of the given categories, [V + 1]."""
        codes = [code for code, name in enumerate(self.categories) if code != NO_CATEGORY and name in names]
        return np.isin(self.category_V, codes)

    def unavailable(self, now: datetime) -> npt.NDArray[np.int64]:
        """Return the items that must not be shown at `now`."""
        moment = round(now.timestamp() * 1_000_000)
        found: npt.NDArray[np.int64] = np.flatnonzero(~self.available_V | (self.until_V <= moment))
        return found

    def next_expiry(self, now: datetime) -> float:
        """Return the first moment after `now` at which an item expires, in seconds since 1970."""
        later = self.until_V[self.until_V > round(now.timestamp() * 1_000_000)]
        return float(later.min() / 1_000_000) if len(later) else np.inf


def read_items_file(path: Path) -> pa.Table:
    """Read an items file.

    `item_id`, `category` and `title` are string, `available` is bool, `available_until` timestamp[us, UTC]. A column
    that the file lacks is null. Further columns of the file follow as text.

    Raises:
        UserError: the file cannot be read, has no `item_id`, has an item twice, or a value is invalid.
    """
    try:
        table = _READERS.get(path.suffix, _read_csv)(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        fix = "write CSV, JSON lines as *.jsonl, or Parquet as *.parquet"
        raise UserError(f"not readable ({error})", where=path, fix=fix) from error
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(path, not twice, f"columns that occur twice: {', '.join(twice)}")
    if "item_id" not in names:
        fix = f"name the column of ids item_id; other known columns: {', '.join(COLUMNS[1:])}"
        raise UserError("no column item_id", where=path, fix=fix)
    item_ids = normal_ids(_text(path, table, "item_id"))
    _require(path, not item_ids.null_count, "an item_id is empty")
    _require(path, len(pc.unique(item_ids)) == len(item_ids), "an item_id occurs in several rows")
    nulls = pa.nulls(len(table), pa.string())
    for name in COLUMNS[1:]:
        if name not in names:
            table = table.append_column(name, pa.chunked_array([nulls]))
    columns = [
        *(item_ids, _text(path, table, "category")),
        *(_flags(path, table), _times(path, table["available_until"]), _text(path, table, "title")),
    ]
    further = {name: _text(path, table, name) for name in table.column_names if name not in COLUMNS}
    return pa.table(dict(zip(COLUMNS, columns, strict=True)) | further)


def align(table: pa.Table, item_ids: pa.Array) -> ItemFacts:
    """Return the facts of a catalogue's items, [V] raw ids; rows of other items are dropped."""
    rows = pc.index_in(item_ids, value_set=table["item_id"].combine_chunks())
    found = table.take(rows)
    category = pc.fill_null(found["category"], "").combine_chunks()
    names = ["", *sorted(set(pc.unique(category).to_pylist()) - {""})]
    codes = pc.index_in(category, value_set=pa.array(names, pa.string()))
    available = pc.fill_null(found["available"], fill_value=True)
    until = pc.fill_null(found["available_until"].cast(pa.int64()), int(_NEVER))
    return ItemFacts(
        categories=names,
        category_V=_padded(np.asarray(codes, np.int32), NO_CATEGORY),
        available_V=_padded(np.asarray(available, np.bool_), 1),
        until_V=_padded(np.asarray(until, np.int64), _NEVER),
        described=found.drop_columns(["item_id", "available", "available_until"]).combine_chunks(),
    )


def _padded(values_V: npt.NDArray[Any], padding: int) -> npt.NDArray[Any]:
    return np.concatenate((np.array([padding], values_V.dtype), values_V))


def _read_csv(path: Path) -> pa.Table:
    names = pyarrow.csv.open_csv(path).schema.names
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    return pyarrow.csv.read_csv(path, convert_options=options)


def _read_json(path: Path) -> pa.Table:
    return pyarrow.json.read_json(path)


def _text(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return table[name].cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(f"column {name!r} is neither text nor a number", where=path, fix="leave it out") from None


_READERS = {".parquet": pq.read_table, ".jsonl": _read_json, ".csv": _read_csv}


def _flags(path: Path, table: pa.Table) -> pa.ChunkedArray:
    if pa.types.is_boolean(table["available"].type):
        return table["available"]
    text = pc.utf8_lower(_text(path, table, "available"))
    known = pc.is_in(text, value_set=pa.concat_arrays([_TRUE, _FALSE]))
    _require(path, pc.all(pc.or_(known, pc.is_null(text))).as_py() is not False, "available is neither true nor false")
    return pc.if_else(pc.is_null(text), pa.scalar(None, pa.bool_()), pc.is_in(text, value_set=_TRUE))


def _times(path: Path, column: pa.ChunkedArray) -> pa.ChunkedArray:
    times = parse_times(column, "s")
    if times is None or times.null_count != column.null_count:
        raise _unusable(path, "available_until is not a time")
    return times.cast(TIMESTAMP)


def _require(path: Path, holds: bool, what: str) -> None:
    if not holds:
        raise _unusable(path, what)


def _unusable(path: Path, what: str) -> UserError:
    return UserError(
        what, where=path, fix=f"correct the file; its columns are {', '.join(COLUMNS)}, and any further ones"
    )
