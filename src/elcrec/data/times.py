"""Times in whatever form a log has them, as microseconds of UTC."""

from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

EpochUnit = Literal["s", "ms", "us"]

TIMESTAMP = pa.timestamp("us", tz="UTC")

_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_LAST = 253_402_300_800_000_000  # the year 10000: what lies beyond is no time but a mistake
_INTEGER = r"^\s*[+-]?[0-9]{1,18}\s*$"
_NUMBER = r"^\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?\s*$"
_ISO = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.,]+\s*(Z|z|[+-][0-9:]+)?)?\s*$"


def parse_times(column: pa.ChunkedArray, epoch_unit: EpochUnit) -> pa.ChunkedArray | None:
    """Return the times as timestamp[us, UTC], null where absent or unreadable; zoneless times are UTC.

    Text may mix ISO 8601 and epoch numbers. `None` means that the type of the column can hold no time.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _from_timestamps(column)
    if pa.types.is_integer(kind):
        return _from_numbers(column, epoch_unit)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_numbers(column.cast(pa.float64()), epoch_unit)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _from_text(column.cast(pa.string()), epoch_unit)
    return None


def _from_timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    unit, numbers = column.type.unit, column.cast(pa.int64())
    if unit == "ns":
        return pc.divide(numbers, 1000).cast(TIMESTAMP)
    return _from_numbers(numbers, unit)


def _from_numbers(column: pa.ChunkedArray, unit: EpochUnit) -> pa.ChunkedArray:
    factor = _MICROSECONDS[unit]
    if pa.types.is_unsigned_integer(column.type):
        column = pc.cast(column, pa.int64(), safe=False)  # beyond int64 it wraps round to a negative time
    size = pc.cast(column, pa.float64(), safe=False) if pa.types.is_integer(column.type) else column
    limit = float(_LAST // factor)
    inside = pc.and_(pc.less(size, limit), pc.greater(size, -limit))  # null for null, false for NaN
    kept = pc.if_else(inside, column, pa.scalar(None, column.type))
    if pa.types.is_floating(kept.type):
        microseconds = pc.round(pc.multiply(kept, float(factor))).cast(pa.int64())
    else:
        microseconds = pc.multiply(kept.cast(pa.int64()), factor)
    return microseconds.cast(TIMESTAMP)


def _from_text(text: pa.ChunkedArray, unit: EpochUnit) -> pa.ChunkedArray:
    """Read each value by its own form, so that a log may be read in parts."""
    null = pa.scalar(None, pa.string())
    is_integer = pc.match_substring_regex(text, _INTEGER)
    integers = _from_numbers(_trim(pc.if_else(is_integer, text, null)).cast(pa.int64()), unit)
    if pc.all(is_integer).as_py():  # nulls are left out; an all-null column is trivially numeric
        return integers
    is_number = pc.match_substring_regex(text, _NUMBER)
    numbers = _from_numbers(_trim(pc.if_else(is_number, text, null)).cast(pa.float64()), unit)
    return pc.coalesce(_from_iso(text), integers, numbers)


def _trim(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.ascii_ltrim(pc.ascii_trim_whitespace(text), characters="+")


def _from_iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    # The pattern keeps words such as "now", which pandas would read, from becoming times.
    kept = pc.if_else(
        pc.match_substring_regex(text, _ISO), pc.ascii_trim_whitespace(text), pa.scalar(None, pa.string())
    )
    times = pd.to_datetime(kept.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return pa.chunked_array([pa.Array.from_pandas(times).cast(pa.timestamp("us", tz="UTC"), safe=False)])
