"""Live events from a file: CSV with a header, or JSON lines. Every line is checked before any event is written."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa

from elcrec.config import ValidateConfig
from elcrec.data.ids import normal_id
from elcrec.data.times import EpochUnit, parse_times
from elcrec.errors import UserError
from elcrec.serving.histories import instant, require_valid
from elcrec.serving.ports import Event

_FIX = "correct it; no event was written"
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?)?")
_SECONDS = re.compile(r"[0-9]{9,10}(\.[0-9]{1,6})?")
_REQUIRED = ("user_id", "item_id", "timestamp")

T = TypeVar("T")


class EventColumns(NamedTuple):
    """The form of a file of events, in addition to the columns that every file may have.

    Attributes:
        names: field of an event by the column, or JSON key, that holds it.
        epoch_unit: unit of times that are numbers.
        time_format: form of times that are text, as for strptime; `None` for the common forms.
        delimiter: delimiter of CSV; `None` for a comma.
    """

    names: Mapping[str, str] = {}
    epoch_unit: EpochUnit = "s"
    time_format: str | None = None
    delimiter: str | None = None

    @classmethod
    def of(cls, config: ValidateConfig) -> "EventColumns":
        """Return the form of the log that this section describes."""
        columns = (
            config.user_column,
            config.item_column,
            config.time_column,
            config.event_column,
            config.kind_column,
        )
        fields = ("user_id", "item_id", "timestamp", "event_id", "kind")
        names = {column: field for column, field in zip(columns, fields, strict=True) if column}
        real = config.time == "real"
        return cls(names, config.epoch_unit if real else "s", config.time_format, config.csv.delimiter)

    def own(self, found: Mapping[str, T]) -> dict[str, T]:
        """Return values by the fields of an event; a column with a field's own name takes precedence."""
        renamed = {self.names[name]: value for name, value in found.items() if name in self.names}
        return renamed | {name: value for name, value in found.items() if name not in self.names}


OWN_COLUMNS = EventColumns()


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user_id: str | int
    item_id: str | int
    timestamp: str | int | float
    event_id: str | int | None = None
    answer_id: str | None = None
    kind: str | None = None


def read_events(lines: Iterable[str], *, name: str, columns: EventColumns = OWN_COLUMNS) -> list[Event]:
    """Read events; the first line shows whether the file is JSON lines or CSV. Times without a zone are UTC.

    Args:
        lines: the text, line by line.
        name: what to call it in an error.
        columns: how it is written.

    Raises:
        UserError: there is no event, or a line is invalid; the message names the line.
    """
    first, lines = _peek(lines)
    if first is None:
        raise UserError("no events", where=name)
    read = _json_rows if first.lstrip().startswith("{") else _csv_rows
    now = datetime.now(UTC)
    events = [_event(row, f"{name}: line {number}", now, columns) for number, row in read(lines, name, columns)]
    if not events:
        raise UserError("no events", where=name)
    return events


def _peek(lines: Iterable[str]) -> tuple[str | None, Iterable[str]]:
    iterator = iter(lines)
    first = next(iterator, None)
    return first, itertools.chain([] if first is None else [first.removeprefix("\ufeff")], iterator)


def _json_rows(lines: Iterable[str], name: str, columns: EventColumns) -> Iterator[tuple[int, _Line]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, msgspec.convert(columns.own(decoder.decode(line)), _Line)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise UserError(str(error), where=f"{name}: line {number}", fix=_FIX) from error


def _csv_rows(lines: Iterable[str], name: str, columns: EventColumns) -> Iterator[tuple[int, _Line]]:
    reader = csv.DictReader(lines, strict=True, delimiter=columns.delimiter or ",")
    try:
        _require_columns(list(columns.own(dict.fromkeys(reader.fieldnames or []))), name)
        for row in reader:
            yield reader.line_num, _csv_line(columns.own(row), f"{name}: line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"not CSV ({error})", where=f"{name}: line {reader.reader.line_num}", fix=_FIX) from error


def _require_columns(found: list[str], name: str) -> None:
    missing = [column for column in _REQUIRED if column not in found]
    if missing:
        fix = (
            "write user_id,item_id,timestamp[,event_id,answer_id,kind], JSON lines with these keys, or the log's own "
            "columns"
        )
        raise UserError(f"no column {', '.join(missing)}", where=f"{name}: line 1", fix=fix)


def _csv_line(row: dict[str | Any, str | Any], where: str) -> _Line:
    if None in row or None in row.values():
        raise UserError("the number of fields differs from the header", where=where, fix=_FIX)
    return _Line(
        user_id=row["user_id"],
        item_id=row["item_id"],
        timestamp=row["timestamp"],
        event_id=row.get("event_id") or None,
        answer_id=row.get("answer_id") or None,
        kind=row.get("kind") or None,
    )


def _event(line: _Line, where: str, now: datetime, columns: EventColumns) -> Event:
    event_id = None if line.event_id is None else normal_id(str(line.event_id))
    moment = _moment(line.timestamp, where, columns)
    event = Event(
        user_id=normal_id(str(line.user_id)),
        item_id=normal_id(str(line.item_id)),
        timestamp=moment,
        event_id=event_id,
        answer_id=line.answer_id,
        kind=None if line.kind is None else normal_id(line.kind),
    )
    require_valid(event, now=now, where=where)
    return event


def read_moment(value: str | float, where: str = "timestamp") -> datetime:
    """Read a time as the server accepts it: ISO 8601, a compact date, or seconds since 1970; UTC if it has no zone.

    Raises:
        UserError: it is none of these.
    """
    return _moment(value, where, OWN_COLUMNS)


def _moment(value: str | float, where: str, columns: EventColumns) -> datetime:
    """Read a time like those of a log: the common forms directly, all others with the reader of logs."""
    text = str(value).strip()
    if columns.time_format is None and _ISO.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if columns.epoch_unit == "s" and _SECONDS.fullmatch(text):
        return instant(round(float(text) * 1_000_000))
    array = pa.chunked_array([pa.array([text], pa.string())])
    times = parse_times(array, columns.epoch_unit, columns.time_format)
    found = None if times is None else times.cast(pa.int64())[0].as_py()
    if found is None:
        what = (
            f"timestamp {value!r} is neither ISO 8601, a compact date, nor a number since 1970 ({columns.epoch_unit})"
        )
        raise UserError(what, where=where, fix=_FIX)
    return instant(found)
