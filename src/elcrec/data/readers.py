"""Readers of raw logs of any layout into the common form; invalid rows are kept, with nulls, for validation."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from elcrec.config import LogFormat
from elcrec.data.benchmark import read_benchmark
from elcrec.data.interactions import EVENT_ID
from elcrec.data.json_lines import JsonRows, read_lines, scan_json_lines
from elcrec.data.lines import scan_lines
from elcrec.data.log import RawLog, TornLine, insert_torn
from elcrec.data.raw_columns import Columns, in_one_form
from elcrec.data.text import TextLayout, open_bytes, packing_of
from elcrec.errors import UserError

_BLOCK_BYTES = 16 << 20  # pyarrow refuses a row longer than a block
_ROWS_AT_ONCE = 1 << 17
_TORN_EXAMPLES, _TORN_SHOWN = 5, 80
_LOOKED_AT = 64


def read_log(files: Sequence[Path], layout: LogFormat, columns: Columns | None = None) -> RawLog:
    """Open a log in one file, or in several files one after another.

    Raises:
        UserError: a file is missing, empty or not in this layout, or a column is missing or of an unusable type. Much
            of this is raised only while the parts are read.
    """
    columns = columns or Columns()
    logs = [_open(file, layout, columns) for file in files]
    event_ids = None if any(log.event_ids is None for log in logs) else any(log.event_ids for log in logs)
    known = [log.about_rows for log in logs]
    parts = (_with_event_ids(part, event_ids is not False) for log in logs for part in log.parts)
    return RawLog(
        parts=_present(parts if columns.time or layout == "benchmark" else _as_they_stand(parts), files[0]),
        file=files[0],
        time="order" if columns.kind == "order" else logs[0].time,
        a_line_a_user=logs[0].a_line_a_user,
        types=max((log.types for log in logs), key=len),
        event_ids=event_ids,
        whole=logs[0].whole,
        about_rows=None if None in known else sum(rows or 0 for rows in known),
        found=logs[0].found,
        lines=logs[0].lines,
        torn_lines=logs[0].torn_lines,
    )


def _as_they_stand(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Use the positions of rows as their times."""
    start = 1
    for part in parts:
        whole = pc.invert(part["torn"])
        places = pc.if_else(whole, pa.array(np.arange(start, start + len(part))), pa.scalar(None, pa.int64()))
        columns = {"micros": places, "given": whole, "raw_time": places.cast(pa.string())}
        yield pa.table({name: columns.get(name, part[name]) for name in part.column_names})
        start += len(part)


def _with_event_ids(part: pa.Table, wanted: bool) -> pa.Table:
    """Add an empty column of event ids to a part of a file that lacks it, if another file has ids."""
    if not wanted or EVENT_ID in part.column_names:
        return part
    return part.append_column(EVENT_ID, pa.nulls(len(part), pa.string()))


def _open(path: Path, layout: LogFormat, columns: Columns) -> RawLog:
    _check_file(path)
    if layout == "benchmark" and (columns.keep or columns.event_kind or columns.tie):
        fix = "unset validate.keep, kind_column and tie_column"
        raise UserError("a benchmark log has no columns of its own", where=path, fix=fix)
    if layout != "parquet":
        _refuse_other_formats(path, layout)
    readers = {"csv": read_csv, "parquet": read_parquet, "jsonl": read_json_lines}
    with _readable(path, layout):
        log = (
            read_benchmark(path, spellings=columns.spellings)
            if layout == "benchmark"
            else readers[layout](path, columns)
        )
    return replace(log, parts=_guarded(log.parts, path, layout))


def _guarded(parts: Iterator[pa.Table], path: Path, layout: LogFormat) -> Iterator[pa.Table]:
    while True:
        with _readable(path, layout):
            part = next(parts, None)
        if part is None:
            return
        yield part


@contextmanager
def _readable(path: Path, layout: LogFormat) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"not readable as {layout} ({_short(error)})", where=path) from error


def _present(parts: Iterator[pa.Table], file: Path) -> Iterator[pa.Table]:
    rows = 0
    for part in parts:
        rows += len(part)
        yield part
    if not rows:
        raise UserError("the log has no rows", where=file, fix="check the export that wrote it")


def read_csv(path: Path, columns: Columns) -> RawLog:
    """Read CSV text, in the layout of `validate.csv` or as detected from its beginning; an empty field is a null."""
    layout = TextLayout.found(path, columns.csv)
    names = _require(path, columns, list(layout.names), layout=layout)
    torn_lines: list[TornLine] = []
    return RawLog(
        parts=_csv_parts(path, columns, names, layout, torn_lines),
        file=path,
        time="real",
        types=dict.fromkeys(names, "string"),
        event_ids=columns.event in names,
        found=f"csv, {layout}, columns {_short(', '.join(layout.names))}",
        lines=scan_lines(path, layout),
        torn_lines=torn_lines,
    )


def _csv_parts(
    path: Path, columns: Columns, names: list[str], layout: TextLayout, torn_lines: list[TornLine]
) -> Iterator[pa.Table]:
    torn: list[int] = []

    def skip(row: Any) -> str:
        # The parser counts rows from 1, including the header.
        place = row.number - 1 - layout.header
        torn.append(place)
        if len(torn_lines) < _TORN_EXAMPLES:
            text = str(row.text).replace(layout.separator, layout.delimiter)
            fault = f"{row.actual_columns} fields, but there are {row.expected_columns} columns"
            torn_lines.append(TornLine(place, _short(text, _TORN_SHOWN), fault))
        return "skip"

    reader = pyarrow.csv.open_csv(
        layout.open(path),
        # One thread, because rows are numbered only then.
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False, block_size=_BLOCK_BYTES, column_names=None if layout.header else list(layout.names)
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.separator,
            quote_char=layout.quote or False,
            escape_char=layout.escape or False,
            newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    start = 0
    for batch in reader:
        part = in_one_form(path, pa.Table.from_batches([batch]), columns)
        # The parser reads ahead: torn lines after this batch belong to a later one.
        places = np.asarray(torn, np.int64) - start
        within = int(np.searchsorted(places - np.arange(len(places)), len(part)))
        del torn[:within]
        yield insert_torn(part, places[:within])
        start += len(part) + within
    nothing = in_one_form(path, reader.schema.empty_table(), columns)
    yield insert_torn(nothing, np.asarray(torn, np.int64) - start)


def read_parquet(path: Path, columns: Columns) -> RawLog:
    """Read a Parquet file; ids may be text or integers, times text, timestamps, dates or numbers."""
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    names = _require(path, columns, schema.names)
    in_one_form(path, schema.empty_table().select(names), columns)  # refuses types that cannot be used
    return RawLog(
        parts=_parquet_parts(path, columns, names),
        file=path,
        time="real",
        types={name: str(schema.field(name).type) for name in names},
        event_ids=columns.event in names,
        about_rows=rows,
        found=f"parquet, {rows:,} rows, columns {_short(', '.join(schema.names))}",
    )


def _parquet_parts(path: Path, columns: Columns, names: list[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
            table = pa.Table.from_batches([batch]).select(names)
            table.validate(full=True)  # text that is not UTF-8
            yield in_one_form(path, table, columns)


def read_json_lines(path: Path, columns: Columns) -> RawLog:
    """Read a file with one JSON object per line; a key that a line lacks is a null."""
    types = dict.fromkeys(columns.required, "text or number")
    torn_lines: list[TornLine] = []
    return RawLog(
        parts=_json_parts(path, columns, torn_lines),
        file=path,
        time="real",
        types=types,
        event_ids=None,
        whole="line is a JSON object of text and numbers",
        found=f"json lines, {packing_of(path) or 'not packed'}, one object per line",
        lines=scan_json_lines(path),
        torn_lines=torn_lines,
    )


def _json_parts(path: Path, columns: Columns, torn_lines: list[TornLine]) -> Iterator[pa.Table]:
    rows, read = JsonRows([*columns.required, columns.event]), 0
    for lines in read_lines(path):
        table, torn = rows.read(lines)
        for place in torn[: _TORN_EXAMPLES - len(torn_lines)].tolist():
            text = _short(lines[place].decode(errors="replace").strip(), _TORN_SHOWN)
            torn_lines.append(TornLine(read + place, text, "not an object of text and numbers"))
        yield insert_torn(in_one_form(path, table, columns), torn)
        read += len(lines)
    missing = [name for name in columns.required if name not in rows.found]
    if missing and read:
        fix = (
            "write one object per line (from an array: jq -c '.[]'; from objects over several lines: jq -c .); set "
            "validate.user_column, item_column and time_column to its keys"
        )
        raise UserError(f"no line has a value of {', '.join(map(repr, missing))}", where=path, fix=fix)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError("no such file", where=path, fix="run the fetch stage first")
    if not path.stat().st_size:
        raise UserError("the file is empty", where=path, fix="check the export that wrote it")


def _refuse_other_formats(path: Path, layout: LogFormat) -> None:
    """Refuse a file that begins like another format, and name that format."""
    with open_bytes(path) as file:
        start = bytes(file.read(_LOOKED_AT)).removeprefix(BOM_UTF8).lstrip()
    if start.startswith(b"PK\x03\x04"):
        fix = "unpack it, or export the spreadsheet as CSV"
        raise UserError("the file is a zip archive, or a spreadsheet", where=path, fix=fix)
    if start.startswith(b"PAR1"):
        raise UserError(f"the file is Parquet, not {layout}", where=path, fix="set fetch.file.format=parquet")
    if layout == "csv" and start.startswith((b"{", b"[{")):
        fix = "set fetch.file.format=jsonl, with one object per line (from an array: jq -c '.[]')"
        raise UserError("the file is JSON, not CSV", where=path, fix=fix)


def _require(path: Path, columns: Columns, found: list[str], *, layout: TextLayout | None = None) -> list[str]:
    """Return the columns to read, after checking that they exist."""
    missing = [name for name in columns.required if name not in found]
    if missing:
        fix = "set validate.user_column, item_column and time_column to its names"
        if layout and layout.header and any(map(_is_number, found)):
            fix = "its first line looks like data: name its columns, all of them in order, with validate.csv.names"
        what = f"no column {', '.join(map(repr, missing))}; the file has {_short(', '.join(map(repr, found)))}"
        raise UserError(f"{what} ({layout})" if layout else what, where=path, fix=fix)
    names = columns.found_in(found)
    twice = [name for name in names if found.count(name) > 1]
    if twice:
        raise UserError(f"column {twice[0]!r} occurs twice in the header", where=path)
    return names


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).lstrip("-").isdigit()


def _short(text: object, limit: int = 200) -> str:
    """Return one printable line of bounded length, even for the bytes of a broken file."""
    line = "".join(character if character.isprintable() else "?" for character in str(text))
    return line if len(line) <= limit else f"{line[:limit]}…"
