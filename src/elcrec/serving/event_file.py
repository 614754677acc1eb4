"""Live events from a file: CSV with a header, or JSON lines, each line checked before any is written."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa

from elcrec.data.ids import normal_id
from elcrec.data.times import parse_times
from elcrec.errors import UserError
from elcrec.serving.histories import instant, require_valid
from elcrec.serving.ports import Event

_FIX = "mend it; no event was written"
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?)?")
_SECONDS = re.compile(r"[0-9]{9,10}(\.[0-9]{1,6})?")
_REQUIRED = ("user_id", "item_id", "timestamp")


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user_id: str | int
    item_id: str | int
    timestamp: str | int | float
    event_id: str | int | None = None
    answer_id: str | None = None


def read_events(lines: Iterable[str], *, name: str) -> list[Event]:
    """Read events; the first line tells a JSON object from a CSV header. Times without a zone are UTC.

    Args:
        lines: the text, line by line.
        name: what to call it in an error.

    Raises:
        UserError: there is no event, or a line is not one; the message names the line.
    """
    first, lines = _peek(lines)
    if first is None:
        raise UserError("no events", where=name)
    rows = _json_rows(lines, name) if first.lstrip().startswith("{") else _csv_rows(lines, name)
    now = datetime.now(UTC)
    events = [_event(row, f"{name}: line {number}", now) for number, row in rows]
    if not events:
        raise UserError("no events", where=name)
    return events


def _peek(lines: Iterable[str]) -> tuple[str | None, Iterable[str]]:
    iterator = iter(lines)
    first = next(iterator, None)
    return first, itertools.chain([] if first is None else [first.removeprefix("\ufeff")], iterator)


def _json_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, _Line]]:
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise UserError(str(error), where=f"{name}: line {number}", fix=_FIX) from error


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, _Line]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        _require_columns(list(reader.fieldnames or []), name)
        for row in reader:
            yield reader.line_num, _csv_line(row, f"{name}: line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"not CSV ({error})", where=f"{name}: line {reader.reader.line_num}", fix=_FIX) from error


def _require_columns(found: list[str], name: str) -> None:
    missing = [column for column in _REQUIRED if column not in found]
    if missing:
        fix = "write user_id,item_id,timestamp[,event_id,answer_id], or JSON lines with these keys"
        raise UserError(f"no column {', '.join(missing)}", where=f"{name}: line 1", fix=fix)


def _csv_line(row: dict[str | Any, str | Any], where: str) -> _Line:
    if None in row or None in row.values():
        raise UserError("not as many fields as the header", where=where, fix=_FIX)
    return _Line(
        user_id=row["user_id"],
        item_id=row["item_id"],
        timestamp=row["timestamp"],
        event_id=row.get("event_id") or None,
        answer_id=row.get("answer_id") or None,
    )


def _event(line: _Line, where: str, now: datetime) -> Event:
    event_id = None if line.event_id is None else normal_id(str(line.event_id))
    moment = _moment(line.timestamp, where)
    event = Event(
        user_id=normal_id(str(line.user_id)),
        item_id=normal_id(str(line.item_id)),
        timestamp=moment,
        event_id=event_id,
        answer_id=line.answer_id,
    )
    require_valid(event, now=now, where=where)
    return event


def _moment(value: str | float, where: str) -> datetime:
    """Read a time as a log's are read: the common forms at once, all others by the reader of logs."""
    text = str(value).strip()
    if _ISO.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if _SECONDS.fullmatch(text):
        return instant(round(float(text) * 1_000_000))
    times = parse_times(pa.chunked_array([pa.array([text], pa.string())]), "s")
    found = None if times is None else times.cast(pa.int64())[0].as_py()
    if found is None:
        what = f"timestamp {value!r} is neither ISO 8601, a compact date, nor seconds since 1970"
        raise UserError(what, where=where, fix=_FIX)
    return instant(found)
