"""The columns of a raw log in one form: ids as text, times as instants, and which rows count."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.config import CsvConfig, KeepConfig
from elcrec.data.ids import LARGEST_WHOLE_FLOAT, normal_ids, spellings_of
from elcrec.data.interactions import KIND, TIE
from elcrec.data.log import KEPT, SPELLING, TimeKind, part_of
from elcrec.data.text import AS_FOUND
from elcrec.data.times import TIMESTAMP, EpochUnit, parse_times
from elcrec.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of columns in a CSV or Parquet log; a benchmark file needs no names."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    event: str = "event_id"
    epoch_unit: EpochUnit = "s"
    null_tokens: tuple[str, ...] = ()
    csv: CsvConfig = AS_FOUND
    kind: TimeKind = "real"
    time_format: str | None = None
    keep: KeepConfig | None = None
    """Which rows count; `None` for all."""
    event_kind: str | None = None
    """Column with the kind of event; `None` if not used."""
    tie: str | None = None
    """Column that orders events of the same time; `None` if not used."""
    spellings: bool = False
    """Whether to read also the users' ids exactly as in the log."""

    @property
    def required(self) -> list[str]:
        """The columns that a log must have."""
        asked = [self.event_kind, self.tie]
        asked += [self.keep.column, self.keep.rating_column] if self.keep else []
        return [name for name in dict.fromkeys([self.user, self.item, self.time, *asked]) if name]

    def found_in(self, names: list[str]) -> list[str]:
        """Return the columns to read from a log with these columns."""
        more = [name for name in (self.event,) if name in names]
        return list(dict.fromkeys([*self.required, *more]))


def in_one_form(path: Path, table: pa.Table, columns: Columns) -> pa.Table:
    """Return a table of raw columns as a part of a log; ids and times without sense are nulls."""
    raw_time = table[columns.time] if columns.time else pa.chunked_array([pa.nulls(len(table), pa.string())])
    if pa.types.is_dictionary(raw_time.type):
        raw_time = raw_time.cast(raw_time.type.value_type)
    times = _times(path, raw_time, columns).cast(pa.int64())
    event = _ids(path, table, columns.event, columns) if columns.event in table.column_names else None
    item, text = _ids(path, table, columns.item, columns), _text_of_ids(path, table, columns.user)
    user = normal_ids(text, columns.null_tokens)
    part = part_of(user, item, times, raw_time, event)
    if columns.event_kind:
        part = part.append_column(KIND, normal_ids(_text_of_ids(path, table, columns.event_kind)))
    if columns.tie:
        part = part.append_column(TIE, _tie_order(path, table, columns.tie))
    if columns.keep:
        part = part.append_column(KEPT, _kept(path, table, times, columns.keep))
    return part.append_column(SPELLING, spellings_of(text, user)) if columns.spellings else part


def _tie_order(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return numbers or times as numbers; a row without a value comes first."""
    column = table[name]
    places = _places(column)
    places = parse_times(column, "us") if places is None else places
    if places is None:
        raise _wrong_type(path, name, column.type, "whole numbers or timestamps")
    return pc.fill_null(places.cast(pa.int64()), 0)


def _kept(path: Path, table: pa.Table, micros: pa.ChunkedArray, keep: KeepConfig) -> pa.ChunkedArray:
    """Return which rows count; a row with an unknown time counts, and is left to the rules."""
    kept = pa.chunked_array([pa.repeat(pa.scalar(True), len(table))])
    if keep.column:
        kinds = _text_of_ids(path, table, keep.column)
        kept = pc.and_(kept, pc.is_in(normal_ids(kinds), value_set=pa.array(keep.values)))
    if keep.rating_column:
        kept = pc.and_(kept, pc.greater_equal(_numbers(path, table, keep.rating_column), keep.least_rating))
    for day, holds in ((keep.since, pc.greater_equal), (keep.before, pc.less)):
        if day:
            bound = np.datetime64(day, "us").astype(np.int64).item()
            kept = pc.and_(kept, pc.fill_null(holds(micros, bound), fill_value=True))
    return pc.fill_null(kept, fill_value=False)


def _numbers(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _wrong_type(path, name, "something that is not a number", "numbers") from error


def _ids(path: Path, table: pa.Table, name: str, columns: Columns) -> pa.ChunkedArray:
    return normal_ids(_text_of_ids(path, table, name), columns.null_tokens)


def _text_of_ids(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return ids as text. Whole floats count as integers, because pandas turns integers with gaps into floats."""
    column = table[name]
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = _whole_numbers(path, column, name)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        column = _text_of_bytes(path, column, name)
    elif isinstance(kind, pa.UuidType):
        column = pa.chunked_array([pa.array(map(_text, column.to_pylist()), pa.string())])
    elif pa.types.is_null(kind) or pa.types.is_boolean(kind) or not _is_plain(kind):
        raise _wrong_type(path, name, kind, "text or integers")
    return column.cast(pa.string())


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _text_of_bytes(path: Path, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return bytes as UTF-8 text, or, for a fixed size of sixteen bytes that are not UTF-8, as a UUID."""
    try:
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        if column.type != pa.binary(16):
            raise _wrong_type(path, name, "bytes that are not UTF-8", "text or integers") from error
    values = (value if value is None else str(UUID(bytes=value)) for value in column.to_pylist())
    return pa.chunked_array([pa.array(values, pa.string())])


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _whole_numbers(path: Path, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        large = pc.any(pc.greater(pc.abs(column.cast(pa.float64())), float(LARGEST_WHOLE_FLOAT))).as_py()
        if large:
            raise _wrong_type(path, name, "floats beyond 2^53, which cannot distinguish ids", "text or integers")
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise _wrong_type(path, name, "fractions", "text or integers") from error


def _times(path: Path, raw: pa.ChunkedArray, columns: Columns) -> pa.ChunkedArray:
    times = _places(raw) if columns.kind == "order" else parse_times(raw, columns.epoch_unit, columns.time_format)
    if times is None:
        raise _wrong_type(path, columns.time, raw.type, "ISO 8601 text, timestamps or epoch numbers")
    return times


def _places(raw: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return whole numbers that only give an order as microseconds; null for anything else."""
    if pa.types.is_integer(raw.type) or pa.types.is_null(raw.type):
        return raw.cast(pa.int64()).cast(TIMESTAMP)
    if not (pa.types.is_string(raw.type) or pa.types.is_large_string(raw.type)):
        return None
    text = pc.ascii_trim_whitespace(raw.cast(pa.string()))
    whole = pc.match_substring_regex(text, "^[0-9]{1,15}$")
    return pc.if_else(whole, text, pa.scalar(None, pa.string())).cast(pa.int64()).cast(TIMESTAMP)


def _wrong_type(path: Path, name: str, kind: object, wanted: str) -> UserError:
    return UserError(f"column {name!r} has type {kind}, but must have {wanted}", where=path)
