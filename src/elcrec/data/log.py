"""A raw log on its way in: parts of one form, whatever layout the file has."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.data.interactions import EVENT_ID, KIND, TIE
from elcrec.data.lines import Lines
from elcrec.progress import track

KEPT = "kept"
"""The column that says which rows count."""
SPELLING = "spelling"
"""The column with a user's id as it stands in a log."""

TimeKind = Literal["real", "order"]

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1 << 17
_ROWS_SHOWN = 3


class TornLine(NamedTuple):
    """A line that is no row: the place among rows, its text, and what is wrong with it."""

    row: int
    text: str
    fault: str


@dataclass(frozen=True, kw_only=True)
class RawLog:
    """A log that is being read.

    Attributes:
        parts: tables of its rows, in the order of the file: `torn` bool (the line is no row, so nothing else is
            known of it), `user_id` and `item_id` string, `micros` int64 (microseconds of
            UTC, null where absent or unreadable), `given` bool (there is a time), `raw_time` as it stood, and where
            the log has ids of its events `event_id` string. Where it is asked for, `spelling` string: the user's id as
            it stands, where that is not its normal form.
        time: `real`, or `order` where the position in the user's line stands for the time.
        types: the columns' types in the file, by name.
        event_ids: whether it has ids of its events; `None` where only its rows show that.
        whole: what holds for a row that is not torn.
        a_line_a_user: whether a line holds all events of a user.
        file: its place, the first one of several; for errors.
        about_rows: how many rows it has, where that is known before it is read.
        found: in words, how it is written.
        lines: what the lines of a text are.
        torn_lines: some of the torn lines, once its parts are read.
    """

    parts: Iterator[pa.Table]
    file: Path
    time: TimeKind
    types: dict[str, str] = field(default_factory=dict)
    event_ids: bool | None = False
    whole: str = "row has the header's number of fields"
    a_line_a_user: bool = False
    about_rows: int | None = None
    found: str = ""
    lines: Lines | None = None
    torn_lines: list[TornLine] = field(default_factory=list)


class StagedLog(NamedTuple):
    """A log as a Parquet file with the columns of `RawLog.parts`.

    Attributes:
        file: its place.
        rows: all its rows, torn ones included.
        torn: how many of them are torn.
        event_ids: whether the log has ids of its events.
        spellings: whether it tells how ids of users stood in the log.
        filtered: whether it says which rows count.
        columns: those that interactions have beside user, item and time, as far as the log has them.
    """

    file: Path
    rows: int
    torn: int
    event_ids: bool
    spellings: bool = False
    filtered: bool = False
    columns: tuple[str, ...] = ()


def shown(log: RawLog) -> RawLog:
    """Say how a log is written, and what its first rows are, before anything judges it."""
    logger.info("%s: %s", log.file, log.found or log.whole)
    first = next(log.parts, None)
    if first is None:
        return log
    for row in first.slice(0, _ROWS_SHOWN).to_pylist():
        moment = None if row["micros"] is None else str(np.datetime64(row["micros"], "us"))
        said = f"user {row['user_id']!r}, item {row['item_id']!r}, time {row['raw_time']!r} = {moment}"
        logger.info("  read as %s", "no row: it is torn" if row["torn"] else said)
    return replace(log, parts=chain([first], log.parts))


def part_of(
    user_id: pa.Array, item_id: pa.Array, micros: pa.Array, raw_time: pa.Array, event_id: pa.Array | None = None
) -> pa.Table:
    """Return whole rows as a part of a log."""
    columns = {
        "torn": pa.repeat(pa.scalar(False), len(user_id)),
        "user_id": user_id,
        "item_id": item_id,
        "micros": micros,
        "given": raw_time.is_valid(),
        "raw_time": raw_time,
    }
    return pa.table(columns if event_id is None else columns | {EVENT_ID: event_id})


def insert_torn(part: pa.Table, places: npt.NDArray[np.int64]) -> pa.Table:
    """Insert torn rows; `places` are their positions in the result, ascending."""
    if not len(places):
        return part
    torn = np.zeros(len(part) + len(places), bool)
    torn[places] = True
    table = part.take(pa.array(np.cumsum(~torn) - 1, mask=torn))
    given = table["given"].fill_null(False)
    return table.set_column(0, "torn", pa.array(torn)).set_column(4, "given", given)


def stage_log(log: RawLog, file: Path) -> StagedLog:
    """Write a log in its common form, a part at a time."""
    rows, torn, event_ids, names, writer = 0, 0, bool(log.event_ids), list[str](), None
    total = None if log.about_rows is None else -(-log.about_rows // _ROWS_AT_ONCE)
    parts = (part for whole in log.parts for part in _slices(whole))
    try:
        for part in track(parts, total=total, label="rows read", step=_ROWS_AT_ONCE):
            writer = writer or pq.ParquetWriter(file, part.schema, compression="lz4")
            writer.write_table(part)
            rows, torn = rows + len(part), torn + int(np.asarray(part["torn"]).sum())
            names = part.column_names
            event_ids = event_ids or (log.event_ids is None and part[EVENT_ID].null_count < len(part))
    finally:
        if writer is not None:
            writer.close()
    pa.default_memory_pool().release_unused()
    columns = (*([EVENT_ID] if event_ids else []), *(name for name in (KIND, TIE) if name in names))
    return StagedLog(file, rows, torn, event_ids, SPELLING in names, KEPT in names, columns)


def _slices(part: pa.Table) -> Iterator[pa.Table]:
    yield from (part.slice(start, _ROWS_AT_ONCE) for start in range(0, len(part), _ROWS_AT_ONCE))
