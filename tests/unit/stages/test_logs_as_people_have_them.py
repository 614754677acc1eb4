"""Kinds of logs that people have, made up here, and where the handed case files lie, those as well."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.engines import ENGINE

from elcrec.config import FetchConfig, LocalFile, ValidateConfig
from elcrec.errors import UserError
from elcrec.stages.fetch import fetch
from elcrec.stages.validate import Metrics, validate

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MIRROR = os.environ.get("ELCREC_MIRROR", "")
CASES = Path(MIRROR).parent / "cases" / "logs"
SMALL = {"min_rows": 1, "min_users": 1, "min_items": 1, "min_interactions_per_user": 0.1}


def case(name: str) -> Path:
    """A handed case file, or a skip that says what is missing."""
    if not MIRROR or not (CASES / name).exists():
        pytest.skip("needs the case files: cases/logs beside the folder that ELCREC_MIRROR names")
    return CASES / name


def checked(file: Path, folder: Path, **options: object) -> Metrics:
    """Fetch and validate a log as `elcrec` does."""
    layout = options.pop("format", "csv")
    fetch(FetchConfig(dataset="file", file=LocalFile(path=str(file), format=layout)), folder / "raw")
    return validate(ValidateConfig(**options), folder / "raw", folder / "out", engine=ENGINE, now=NOW)


def rows_of(folder: Path) -> pa.Table:
    return pq.read_table(folder / "out" / "interactions.parquet")


def written(folder: Path, times: list[object]) -> Path:
    """A made-up log whose times are these."""
    lines = [f"u{row % 3},i{row},{time}" for row, time in enumerate(times)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    return folder / "log.csv"


SECONDS = [1_709_272_104 + 60 * row for row in range(100)]


@pytest.mark.parametrize(("unit", "factor", "likely"), [("ms", 1, "s"), ("s", 1000, "ms"), ("s", 10**6, "us")])
def test_numbers_of_another_unit_are_refused_and_the_likely_unit_is_named(
    tmp_path: Path, unit: str, factor: int, likely: str
) -> None:
    log = written(tmp_path, [second * factor for second in SECONDS])
    with pytest.raises(UserError) as error:
        checked(log, tmp_path, epoch_unit=unit, **SMALL)
    assert f"set validate.epoch_unit={likely}" in error.value.details


@pytest.mark.parametrize("odd", [SECONDS[0], 0, 17, "soon"])
def test_one_odd_time_among_numbers_is_one_faulty_row(tmp_path: Path, odd: object) -> None:
    log = written(tmp_path, [*(second * 1000 for second in SECONDS), odd])
    assert checked(log, tmp_path, epoch_unit="ms", **SMALL)["quarantined"] == 1


@pytest.mark.parametrize("earliest", ["1990-01-01", "1970-01-01"])
def test_the_plausible_period_is_an_option(tmp_path: Path, earliest: str) -> None:
    log = written(tmp_path, ["1980-05-01T00:00:00Z", *SECONDS])
    quarantined = checked(log, tmp_path, earliest=earliest, **SMALL)["quarantined"]
    assert quarantined == (1 if earliest == "1990-01-01" else 0)


def test_the_case_of_seconds_read_as_milliseconds(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        checked(case("04_seconds_read_as_ms.csv"), tmp_path, epoch_unit="ms")
    assert "set validate.epoch_unit=s" in error.value.details


def test_the_case_of_one_word_among_microseconds(tmp_path: Path) -> None:
    assert checked(case("03_us_one_bad_time.csv"), tmp_path, epoch_unit="us")["quarantined"] == 1


@pytest.mark.parametrize("name", ["06_yyyymmdd.csv", "17_utc_suffix.csv"])
def test_the_cases_of_compact_dates_and_of_the_zone_as_a_word(tmp_path: Path, name: str) -> None:
    file = case(name)
    checked(file, tmp_path, max_quarantine_share=1.0, **SMALL)
    times = rows_of(tmp_path)["timestamp"].to_pylist()
    assert {moment.year for moment in times} == {2024}
    assert str(times[0])[:10] == "2024-03-01"


def test_ids_that_mean_one_user_are_one_user_in_every_format(tmp_path: Path) -> None:
    spellings, times = ["37", " 37", "37.0", "37\u00a0"], SECONDS[:4]
    text = tmp_path / "log.csv"
    lines = [f"{user},i{row},{time}" for row, (user, time) in enumerate(zip(spellings, times, strict=True))]
    text.write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    assert checked(text, tmp_path, **SMALL)["users"] == 1
    numbers = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": [37.0] * 4, "item_id": ["a", "b", "c", "d"], "timestamp": times}), numbers)
    checked(numbers, tmp_path, format="parquet", **SMALL)
    assert set(rows_of(tmp_path)["user_id"].to_pylist()) == {"37"}


def test_floats_that_do_not_tell_ids_apart_are_refused(tmp_path: Path) -> None:
    table = pa.table({"user_id": [2.0**53 + 2], "item_id": ["a"], "timestamp": SECONDS[:1]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(UserError, match="2\\^53"):
        checked(tmp_path / "log.parquet", tmp_path, format="parquet", **SMALL)


def test_the_case_of_null_tokens_leaves_no_user_of_that_name(tmp_path: Path) -> None:
    checked(case("07_null_tokens.csv"), tmp_path, max_quarantine_share=1.0, **SMALL)
    assert "NULL" not in rows_of(tmp_path)["user_id"].to_pylist()


def test_the_case_of_floats_among_integers_has_whole_ids_alone(tmp_path: Path) -> None:
    checked(case("08_float_and_int_ids.csv"), tmp_path, **SMALL)
    assert all(user.isdigit() for user in rows_of(tmp_path)["user_id"].to_pylist())


@pytest.mark.parametrize("name", ["25_decimal_ids.parquet", "26_binary_ids.parquet"])
def test_the_cases_of_decimal_and_binary_ids_are_read(tmp_path: Path, name: str) -> None:
    file = case(name)
    assert checked(file, tmp_path, format="parquet", **SMALL)["quarantined"] == 0


@pytest.mark.parametrize("packing", [None, "gzip", "zstd", "bz2"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiter_and_packing_are_found_by_the_content(tmp_path: Path, delimiter: str, packing: str | None) -> None:
    text = written(tmp_path, SECONDS).read_text().replace(",", delimiter).encode()
    with pa.output_stream(str(tmp_path / "log"), compression=packing) as file:
        file.write(text)
    assert checked(tmp_path / "log", tmp_path, **SMALL)["accepted"] == len(SECONDS)


@pytest.mark.parametrize("name", ["19_tab.tsv", "22_log.csv.gz"])
def test_the_cases_of_tabs_and_of_a_packed_file_are_read(tmp_path: Path, name: str) -> None:
    assert checked(case(name), tmp_path)["quarantined"] == 0
