"""Parsing times in any form that a log may have, as microseconds of UTC."""

from collections.abc import Sequence
from typing import Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

EpochUnit = Literal["s", "ms", "us", "ns", "day", "excel"]

TIMESTAMP = pa.timestamp("us", tz="UTC")

DAY = 86_400_000_000
"""Microseconds."""
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1, "day": DAY, "excel": DAY}
_EXCEL_EPOCH = 25_569
"""Serial number of the first day of 1970 in a spreadsheet."""
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_800_000_000
"""The years 1 and 10000: anything beyond is a mistake."""
_INTEGER = r"^\s*[+-]?[0-9]{1,18}\s*$"
_NUMBER = r"^\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?\s*$"
_ISO = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.,]+\s*(Z|z|UTC|GMT|[+-][0-9:]+)?)?\s*$"
_COMPACT = r"^\s*(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9])?)?\s*$"
_FORMS = {
    r"^\s*[A-Z][a-z]{2} [A-Z][a-z]{2} [0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4} [0-9]{4}\s*$": (
        "%a %b %d %H:%M:%S %z %Y"
    ),
    r"^\s*[0-9]{4}-W[0-9]{2}-[1-7]\s*$": "%G-W%V-%u",
}
"""Forms besides ISO 8601 and numbers, with their strptime formats: dates in words, and of weeks."""
_COMPACT_RANGES = ((19000101, 20991231), (190001010000, 209912312359), (19000101000000, 20991231235959))


def parse_times(column: pa.ChunkedArray, epoch_unit: EpochUnit, written: str | None = None) -> pa.ChunkedArray | None:
    """Return the times as timestamp[us, UTC], null if absent or unreadable; times without a zone are UTC.

    Text may mix ISO 8601, compact dates (20240301, 20240301120000) and epoch numbers. They cannot be confused: read as
    epoch numbers of any unit, compact dates would be before 1977 or after 2600. `None` means that a column of this type
    cannot hold times.

    Args:
        column: a column of any type.
        epoch_unit: unit of numbers.
        written: form of text, as for strptime, if it is not in a known form.
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
        text = column.cast(pa.string())
        return _from_format(text, written) if written else _from_text(text, epoch_unit)
    return None


def _from_timestamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    unit, numbers = column.type.unit, column.cast(pa.int64())
    return _from_epoch(numbers, unit)


def _from_numbers(column: pa.ChunkedArray, unit: EpochUnit) -> pa.ChunkedArray:
    if pa.types.is_unsigned_integer(column.type):
        column = pc.cast(column, pa.int64(), safe=False)  # beyond int64 it wraps around to a negative time
    size = pc.cast(column, pa.float64(), safe=False)
    ranges = [pc.and_(pc.greater_equal(size, low), pc.less_equal(size, high)) for low, high in _COMPACT_RANGES]
    compact = pc.and_(pc.or_(pc.or_(ranges[0], ranges[1]), ranges[2]), pc.equal(pc.floor(size), size))
    if not pc.any(compact).as_py():
        return _from_epoch(column, unit)
    whole = pc.if_else(compact, size, pa.scalar(None, pa.float64())).cast(pa.int64())
    return pc.coalesce(_from_compact(whole.cast(pa.string())), _from_epoch(column, unit))


def _from_epoch(column: pa.ChunkedArray, unit: EpochUnit) -> pa.ChunkedArray:
    if unit == "ns":
        in_micros = pc.divide(column, 1000 if pa.types.is_integer(column.type) else 1000.0)
        return _from_epoch(in_micros, "us")
    if unit == "excel":
        column = pc.subtract(column.cast(pa.float64(), safe=False), float(_EXCEL_EPOCH))
    factor = _MICROSECONDS[unit]
    size = pc.cast(column, pa.float64(), safe=False) if pa.types.is_integer(column.type) else column
    # Null for null, false for NaN.
    inside = pc.and_(pc.less(size, float(_LAST // factor)), pc.greater_equal(size, float(_FIRST // factor)))
    kept = pc.if_else(inside, column, pa.scalar(None, column.type))
    if pa.types.is_floating(kept.type):
        microseconds = pc.round(pc.multiply(kept, float(factor))).cast(pa.int64())
    else:
        microseconds = pc.multiply(kept.cast(pa.int64()), factor)
    return microseconds.cast(TIMESTAMP)


def _from_text(text: pa.ChunkedArray, unit: EpochUnit) -> pa.ChunkedArray:
    """Read each value by its own form, so that a log can be read in parts."""
    null = pa.scalar(None, pa.string())
    is_integer = pc.match_substring_regex(text, _INTEGER)
    integers = _from_numbers(_trim(pc.if_else(is_integer, text, null)).cast(pa.int64()), unit)
    if pc.all(is_integer).as_py():  # nulls are dropped; an all-null column is trivially numeric
        return integers
    is_number = pc.match_substring_regex(text, _NUMBER)
    numbers = _from_numbers(_trim(pc.if_else(is_number, text, null)).cast(pa.float64()), unit)
    known = pc.coalesce(_from_iso(text), integers, numbers)
    for pattern, written in _FORMS.items():
        so_written = pc.match_substring_regex(text, pattern)
        if pc.any(so_written).as_py():
            known = pc.coalesce(known, _from_format(pc.if_else(so_written, text, null), written))
    return known


def _from_format(text: pa.ChunkedArray, written: str) -> pa.ChunkedArray:
    trimmed = pc.ascii_trim_whitespace(text).to_pandas()
    return _from_pandas(pd.to_datetime(trimmed, format=written, utc=True, errors="coerce"))


def _trim(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.ascii_ltrim(pc.ascii_trim_whitespace(text), characters="+")


def _from_iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    # The pattern excludes words such as "now", which pandas would accept as times.
    kept = pc.if_else(
        pc.match_substring_regex(text, _ISO), pc.ascii_trim_whitespace(text), pa.scalar(None, pa.string())
    )
    zoned = pc.replace_substring_regex(pc.replace_substring(kept, ",", "."), r"\s*(UTC|GMT)$", "Z")
    return _from_pandas(pd.to_datetime(zoned.to_pandas(), format="ISO8601", utc=True, errors="coerce"))


def _from_compact(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the compact dates among texts; a date that does not exist, such as 20240230, is null."""
    kept = pc.if_else(pc.match_substring_regex(text, _COMPACT), text, pa.scalar(None, pa.string()))
    full = pc.utf8_slice_codeunits(pc.binary_join_element_wise(kept, "000000", ""), 0, 14)
    return _from_pandas(pd.to_datetime(full.to_pandas(), format="%Y%m%d%H%M%S", utc=True, errors="coerce"))


def _from_pandas(times: pd.Series) -> pa.ChunkedArray:
    return pa.chunked_array([pa.Array.from_pandas(times).cast(TIMESTAMP, safe=False)])


def likely_unit(texts: Sequence[str | None], first: int, last: int) -> EpochUnit | None:
    """Return the unit in which all these numbers are times within a period (microseconds), if there is one."""
    given = pa.chunked_array([pa.array([text for text in texts if text], pa.string())])
    if not len(given) or not pc.all(pc.match_substring_regex(given, _NUMBER)).as_py():
        return None
    units: tuple[EpochUnit, ...] = get_args(EpochUnit)
    for unit in units:
        micros = _from_epoch(_trim(given).cast(pa.float64()), unit).cast(pa.int64()).to_pylist()
        if all(moment is not None and first <= moment <= last for moment in micros):
            return unit
    return None
