"""Row-level rules: what makes a single row of a log faulty."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.data.bounds import Bound
from elcrec.data.log import RawLog

CLOCK_TOLERANCE = timedelta(days=1)
"""A time this far ahead of now is still taken: clocks differ, and zoneless times are read as UTC."""

MALFORMED = "row has the header's number of fields"
INTERACTION_COLUMNS = ["user_id", "item_id", "timestamp"]
EVENT_ID = "event_id"
"""The column of interactions that is there where the log has ids of its events."""

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class SortedRows:
    """A log's rows, told apart.

    Attributes:
        interactions: `user_id`, `item_id`, `timestamp` and, where the log has it, `event_id`, in the order of the log.
        quarantine: `row`, `user_id`, `item_id`, `timestamp` as text, `reason`, by row.
    """

    interactions: pa.Table
    quarantine: pa.Table


def row_rules(max_id_length: int, now: datetime, *, event_ids: bool) -> list[Bound]:
    """Return the rules; a faulty row is put down to the first that it breaks.

    Args:
        max_id_length: in characters.
        now: what counts as the present.
        event_ids: whether the log has ids of its events.
    """
    latest = (now + CLOCK_TOLERANCE - _EPOCH) // _MICROSECOND
    long = f"{max_id_length} characters at most"
    return [
        _rule("user_id is present", "user_id_length", "a user id in every row", required=True),
        _rule("item_id is present", "item_id_length", "an item id in every row", required=True),
        _rule("user_id is short enough", "user_id_length", long, maximum=max_id_length),
        _rule("item_id is short enough", "item_id_length", long, maximum=max_id_length),
        *([_rule("event_id is short enough", "event_id_length", long, maximum=max_id_length)] if event_ids else []),
        _rule("timestamp is present", "time_given", "a time in every row", required=True),
        _rule("timestamp is readable", "time_read", "ISO 8601, a timestamp or an epoch number", required=True),
        _rule("timestamp is not negative", "microseconds", "1970 or later", minimum=0),
        _rule(
            "timestamp is not in the future",
            "microseconds",
            "a day ahead of the clock at most",
            maximum=latest,
        ),
        _rule(
            "event is unique",
            "is_copy",
            "no (user, item, time) or (user, event_id) twice; the first is kept",
            maximum=0,
        ),
    ]


def _rule(name: str, column: str, expected: str, **limits: float | bool) -> Bound:
    return Bound(name=name, column=column, expected=expected, severity="warning", **limits)  # type: ignore[arg-type]


def measure_rows(log: RawLog) -> pd.DataFrame:
    """Return a number for everything that the rules ask of a row, NaN where it is absent."""
    table = log.table
    microseconds = _numbers(table["timestamp"].cast(pa.int64()))
    given = table["raw_time"].is_valid().to_numpy()
    lengths = {EVENT_ID: _numbers(pc.utf8_length(table[EVENT_ID]))} if EVENT_ID in table.column_names else {}
    return pd.DataFrame(
        {
            **{f"{name}_length": values for name, values in lengths.items()},
            "user_id_length": _numbers(pc.utf8_length(table["user_id"])),
            "item_id_length": _numbers(pc.utf8_length(table["item_id"])),
            "time_given": np.where(given, 1.0, np.nan),
            "time_read": np.where(given & np.isnan(microseconds), np.nan, 1.0),
            "microseconds": microseconds,
            "is_copy": _copies(table).astype(np.float64),
        }
    )


def sort_out(log: RawLog, measures: pd.DataFrame, rules: list[Bound]) -> SortedRows:
    """Split a log into interactions and faulty rows."""
    reason = _first_broken(measures, rules)
    good = reason < 0
    faulty = log.table.filter(~good)
    names = pa.array([rule.name for rule in rules], pa.string())
    columns = {
        "row": faulty["row"],
        "user_id": faulty["user_id"],
        "item_id": faulty["item_id"],
        "timestamp": faulty["raw_time"].cast(pa.string()),
        "reason": names.take(pa.array(reason[~good])),
    }
    quarantine = pa.concat_tables([pa.table(columns), _malformed(log.malformed)]).sort_by("row")
    columns_kept = [*INTERACTION_COLUMNS, *(name for name in (EVENT_ID,) if name in log.table.column_names)]
    interactions = log.table.filter(good).select(columns_kept)
    return SortedRows(interactions=interactions, quarantine=quarantine)


def _first_broken(measures: pd.DataFrame, rules: list[Bound]) -> npt.NDArray[np.int64]:
    """Index of the first rule that each row breaks, -1 for a good row."""
    reason = np.full(len(measures), -1)
    for index in reversed(range(len(rules))):
        reason[rules[index].broken_by(measures[rules[index].column].to_numpy())] = index
    return reason


def _malformed(rows: list[int]) -> pa.Table:
    nothing = pa.nulls(len(rows), pa.string())
    columns = {
        "row": pa.array(rows, pa.int64()),
        "user_id": nothing,
        "item_id": nothing,
        "timestamp": nothing,
    }
    return pa.table(columns | {"reason": pa.array([MALFORMED] * len(rows), pa.string())})


def _copies(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Say for each row whether one before it has the same user, item and time, or the same user and event id."""
    copies = _repeated(table, INTERACTION_COLUMNS)
    return copies | _repeated(table, ["user_id", EVENT_ID]) if EVENT_ID in table.column_names else copies


def _repeated(table: pa.Table, columns: list[str]) -> npt.NDArray[np.bool_]:
    """Say for each row whether one before it has the same values in these columns, and lacks none."""
    keys = pd.DataFrame({name: integer_keys(table[name]) for name in columns}, copy=False)
    complete = np.logical_and.reduce([table[name].is_valid().to_numpy() for name in columns])
    repeated: npt.NDArray[np.bool_] = keys.duplicated().to_numpy() & complete
    return repeated


def integer_keys(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return integers that are equal where the values are, 0 (or a value's own key) for null."""
    if pa.types.is_string(column.type):
        column = pc.dictionary_encode(column).combine_chunks().indices
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), np.int64)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
