"""Raw logs in a common form, independent of the layout of the file."""

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
"""The column with whether a row counts."""
SPELLING = "spelling"
"""The column with a user's id as in the log."""

TimeKind = Literal["real", "order"]

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1 << 17
_ROWS_SHOWN = 3


class TornLine(NamedTuple):
    """A torn line, which is not a row: its position among rows, its text, and what is wrong with it."""

    row: int
    text: str
    fault: str


@dataclass(frozen=True, kw_only=True)
class RawLog:
    """A log while it is read.

    Attributes:
        parts: tables of its rows, in the order of the file: `torn` bool (the line is not a row, so the other columns
            are unknown), `user_id` and `item_id` string, `micros` int64 (microseconds of UTC, null if absent or
            unreadable), `given` bool (there is a time), `raw_time` as in the file, and if the log has ids of events
            `event_id` string. If requested, `spelling` string: the user's id as in the file, if that is not its normal
            form.
        time: `real`, or `order` if the position in the user's line stands for the time.
        types: types of the columns in the file, by name.
        event_ids: whether it has ids of events; `None` if only its rows show that.
        whole: the condition for a row that is not torn, in words.
        a_line_a_user: whether a line holds all events of a user.
        file: its path, the first one of several; for errors.
        about_rows: number of rows, if known before reading.
        found: description of its layout.
        lines: facts about the lines of a text.
        torn_lines: some of the torn lines, after its parts were read.
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
        file: its path.
        rows: number of rows, including torn ones.
        torn: number of torn rows.
        event_ids: whether the log has ids of events.
        spellings: whether it has the users' ids as in the log.
        filtered: whether it has a column with whether a row counts.
        columns: further columns of interactions, as far as the log has them.
    """

    file: Path
    rows: int
    torn: int
    event_ids: bool
    spellings: bool = False
    filtered: bool = False
    columns: tuple[str, ...] = ()


def shown(log: RawLog) -> RawLog:
    """Log the layout of a log and its first rows, before validation."""
    logger.info("%s: %s", log.file, log.found or log.whole)
    first = next(log.parts, None)
    if first is None:
        return log
    for row in first.slice(0, _ROWS_SHOWN).to_pylist():
        moment = None if row["micros"] is None else str(np.datetime64(row["micros"], "us"))
        said = f"user {row['user_id']!r}, item {row['item_id']!r}, time {row['raw_time']!r} = {moment}"
        logger.info("  read as %s", "torn, so not a row" if row["torn"] else said)
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
    """Insert torn rows at `places`, their ascending positions in the result."""
    if not len(places):
        return part
    torn = np.zeros(len(part) + len(places), bool)
    torn[places] = True
    table = part.take(pa.array(np.cumsum(~torn) - 1, mask=torn))
    given = table["given"].fill_null(False)
    return table.set_column(0, "torn", pa.array(torn)).set_column(4, "given", given)


def stage_log(log: RawLog, file: Path) -> StagedLog:
    """Write a log in the common form, part by part."""
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
