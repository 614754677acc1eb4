from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from elcrec.data.times import likely_unit, parse_times

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = int(NEW_YEAR.timestamp())


def parsed(values: object, kind: pa.DataType | None = None, unit: str = "s") -> list[datetime | None]:
    times = parse_times(pa.chunked_array([pa.array(values, kind)]), unit)
    assert times is not None
    return times.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2026-01-01T00:00:00Z"], None),
        (["2026-01-01"], None),
        (["2026-01-01 01:00:00+01:00"], None),
        ([" 2026-01-01T00:00:00.000000 "], None),
        ([str(SECONDS)], None),
        ([f"{SECONDS}.0"], None),
        (["1.7672256e9"], None),
        (["2026-01-01 00:00:00 UTC"], None),
        (["2026-01-01T00:00:00,000"], None),
        (["20260101"], None),
        (["202601010000"], None),
        (["20260101000000"], None),
        ([20260101], pa.int64()),
        ([20260101.0], pa.float64()),
        ([SECONDS], pa.int64()),
        ([SECONDS], pa.uint32()),
        ([float(SECONDS)], pa.float64()),
        ([date(2026, 1, 1)], pa.date32()),
        ([NEW_YEAR.replace(tzinfo=None)], pa.timestamp("ns")),
        ([NEW_YEAR], pa.timestamp("ms", tz="Europe/Berlin")),
    ],
)
def test_every_form_of_a_time_means_the_same_instant(values: list[object], kind: pa.DataType | None) -> None:
    assert parsed(values, kind) == [NEW_YEAR]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 1_000_000), ("ns", 1_000_000_000)])
def test_epoch_numbers_are_read_in_the_configured_unit(unit: str, factor: int) -> None:
    assert parsed([SECONDS * factor], unit=unit) == [NEW_YEAR]
    assert parsed([str(SECONDS * factor)], unit=unit) == [NEW_YEAR]


@pytest.mark.parametrize("text", ["now", "today", "2026-02-30", "yesterday", "9" * 17, "1e300", "nan", "--1", ""])
def test_text_that_is_no_time_becomes_null_and_spoils_no_other_row(text: str) -> None:
    assert parsed([text, "2026-01-01", str(SECONDS)]) == [None, NEW_YEAR, NEW_YEAR]


def test_numbers_that_are_no_time_become_null() -> None:
    assert parsed([float("nan"), float("inf"), None], pa.float64()) == [None, None, None]
    assert parsed([2**63 + 5], pa.uint64()) == [None]


def test_fractions_of_seconds_are_kept_to_the_microsecond() -> None:
    assert parsed(["2026-01-01T00:00:00.123456Z"]) == [NEW_YEAR.replace(microsecond=123456)]


@pytest.mark.parametrize("values", [[True], [[1]], [{"a": 1}], [None]])
def test_types_that_hold_no_time_are_refused(values: list[object]) -> None:
    assert parse_times(pa.chunked_array([pa.array(values)]), "s") is None


def test_fractions_of_any_unit_are_read_and_too_large_ones_are_not() -> None:
    times = parse_times(pa.chunked_array([[1.4, 1e300, float("nan"), None]]), "us")
    assert times is not None
    assert times.cast(pa.int64()).to_pylist() == [1, None, None, None]


@pytest.mark.parametrize(("unit", "number"), [("day", 20454), ("excel", 46023)])
def test_days_and_serials_of_a_spreadsheet_are_times(unit: str, number: int) -> None:
    assert parsed([number, number + 0.5], pa.float64(), unit) == [NEW_YEAR, NEW_YEAR.replace(hour=12)]
    assert parsed([str(number)], unit=unit) == [NEW_YEAR]


def test_a_compact_date_that_is_in_no_calendar_is_no_date() -> None:
    assert parsed(["20260230", "20260101"])[1] == NEW_YEAR
    assert parsed(["20260230"])[0].year == 1970


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["1709272104", "1709284000.5"], "s"),
        (["1709272104000"], "ms"),
        (["1709272104000000"], "us"),
        (["1709272104000000000"], "ns"),
        (["45352.25"], "excel"),
        (["1709272104", "1709272104000"], None),
        (["soon"], None),
        ([None], None),
    ],
)
def test_the_likely_unit_is_that_in_which_all_numbers_lie_in_the_period(texts: list[str | None], unit: str) -> None:
    first = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    assert likely_unit(texts, first, SECONDS * 1_000_000) == unit


@pytest.mark.parametrize("text", ["2024-W09-5", "Fri Mar 01 00:00:00 +0000 2024", "Fri Mar 1 02:00:00 +0200 2024"])
def test_week_dates_and_month_names_are_read(text: str) -> None:
    found = parse_times(pa.chunked_array([["soon", text]]), "s")
    assert found is not None
    assert found.to_pylist() == [None, datetime(2024, 3, 1, tzinfo=UTC)]
