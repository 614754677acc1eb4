from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from elcrec.data.times import parse_times

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


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
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
