"""Raw logs of any layout as one table; rows that make no sense stay, with nulls, for validation to judge."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from elcrec.config import LogFormat
from elcrec.data.benchmark import read_benchmark
from elcrec.data.log import RawLog
from elcrec.data.times import TIMESTAMP, EpochUnit, parse_times
from elcrec.errors import UserError

_BLOCK_BYTES = 64 << 20  # pyarrow refuses a row that is longer than a block
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a CSV or Parquet log keeps what; a benchmark file needs no names."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    event: str = "event_id"
    epoch_unit: EpochUnit = "s"

    @property
    def required(self) -> list[str]:
        """The columns that a log must have."""
        return [self.user, self.item, self.time]

    def found_in(self, names: list[str]) -> list[str]:
        """Return those to read of a log with these columns."""
        return [*self.required, *(name for name in (self.event,) if name in names)]


def read_log(path: Path, layout: LogFormat, columns: Columns | None = None) -> RawLog:
    """Read a log.

    Raises:
        UserError: the file is absent, empty or not in this layout, a column is missing or of no usable type.
    """
    columns = columns or Columns()
    _check_file(path)
    try:
        if layout == "benchmark":
            return read_benchmark(path)
        log = read_csv(path, columns) if layout == "csv" else read_parquet(path, columns)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"not readable as {layout} ({_short(error)})", where=path) from error
    if not log.num_rows:
        raise UserError("the log has no rows", where=path, fix="check the export that wrote it")
    return log


def read_csv(path: Path, columns: Columns) -> RawLog:
    """Read a comma-separated UTF-8 file with a header; an empty field is a null."""
    names = _require(path, columns, _csv_header(path))
    malformed: list[int] = []

    def skip(row: Any) -> str:
        malformed.append(row.number - 2)  # numbered from 1, and the header is a row
        return "skip"

    table = pyarrow.csv.read_csv(
        path,
        # One thread: rows are numbered only then.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return _log(path, table, columns, malformed)


def read_parquet(path: Path, columns: Columns) -> RawLog:
    """Read a Parquet file; ids may be text or integers, times text, timestamps, dates or numbers."""
    names = _require(path, columns, pq.read_schema(path).names)
    return _log(path, pq.read_table(path, columns=names), columns, [])


def _log(path: Path, table: pa.Table, columns: Columns, malformed: list[int]) -> RawLog:
    raw_time = table[columns.time]
    parsed = {
        "row": _positions(len(table), malformed),
        "user_id": _ids(path, table, columns.user),
        "item_id": _ids(path, table, columns.item),
        "timestamp": _times(path, raw_time, columns),
        "raw_time": raw_time,
    }
    if columns.event in table.column_names:
        parsed["event_id"] = _ids(path, table, columns.event)
    types = {field.name: str(field.type) for field in table.schema}
    return RawLog(table=pa.table(parsed), time="real", malformed=malformed, types=types)


def _positions(rows: int, malformed: list[int]) -> pa.Array:
    kept = np.ones(rows + len(malformed), bool)
    kept[malformed] = False
    return pa.array(np.flatnonzero(kept), pa.int64())


def _ids(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    """Ids as text. Whole floats count as integers: pandas turns an integer column with a gap into floats."""
    column = table[name]
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        column = _whole_numbers(path, column, name)
    elif pa.types.is_null(kind) or pa.types.is_boolean(kind) or not _is_plain(kind):
        raise _wrong_type(path, name, kind, "text or integers")
    text = column.cast(pa.string())
    blank = pc.equal(pc.ascii_trim_whitespace(text), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), text) if pc.any(blank).as_py() else text


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _whole_numbers(path: Path, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise _wrong_type(path, name, "fractions", "text or integers") from error


def _times(path: Path, raw: pa.ChunkedArray, columns: Columns) -> pa.ChunkedArray:
    times = parse_times(raw, columns.epoch_unit)
    if times is None:
        raise _wrong_type(path, columns.time, raw.type, "ISO 8601 text, timestamps or epoch numbers")
    return times.cast(TIMESTAMP)


def _wrong_type(path: Path, name: str, kind: object, wanted: str) -> UserError:
    return UserError(f"column {name!r} has type {kind}, but {wanted} are needed", where=path)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError("no such file", where=path, fix="run the fetch stage first")
    if not path.stat().st_size:
        raise UserError("the file is empty", where=path, fix="check the export that wrote it")


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline(_HEADER_BYTES)
    try:
        return next(csv.reader([line]), [])
    except csv.Error as error:
        raise UserError(f"the first line is no CSV header ({error})", where=path) from error


def _require(path: Path, columns: Columns, found: list[str]) -> list[str]:
    """Return the columns to read, once they are known to be there."""
    missing = [name for name in columns.required if name not in found]
    if missing:
        raise UserError(
            f"no column {', '.join(map(repr, missing))}; the file has {_short(', '.join(map(repr, found)))}",
            where=path,
            fix="set validate.user_column, item_column and time_column to its names",
        )
    names = columns.found_in(found)
    twice = [name for name in names if found.count(name) > 1]
    if twice:
        raise UserError(f"column {twice[0]!r} stands twice in the header", where=path)
    return names


def _short(text: object, limit: int = 200) -> str:
    """One printable line of bounded length, whatever bytes a broken file put into it."""
    line = "".join(character if character.isprintable() else "?" for character in str(text))
    return line if len(line) <= limit else f"{line[:limit]}…"
