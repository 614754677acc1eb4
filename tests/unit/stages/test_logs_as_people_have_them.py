"""Kinds of logs that people have, made up here, and where the handed case files lie, those as well."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import read_json
from elcrec.config import CsvConfig, KeepConfig, SequencesConfig
from elcrec.errors import UserError
from elcrec.stages.sequences import build_sequences
from tests.support.engines import ENGINE
from tests.support.logs import SMALL, case, checked, rows_of


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
def test_one_unreadable_time_among_numbers_is_one_faulty_row(tmp_path: Path, odd: object) -> None:
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


def test_the_case_of_a_word_among_microseconds_is_one_faulty_row(tmp_path: Path) -> None:
    assert checked(case("03_us_one_bad_time.csv"), tmp_path, epoch_unit="us")["quarantined"] == 1


@pytest.mark.parametrize("name", ["06_yyyymmdd.csv", "17_utc_suffix.csv"])
def test_the_cases_of_compact_dates_and_of_the_zone_as_a_word(tmp_path: Path, name: str) -> None:
    file = case(name)
    checked(file, tmp_path, max_quarantine_share=1.0, **SMALL)
    times = rows_of(tmp_path)["timestamp"].to_pylist()
    assert {moment.year for moment in times} == {2024}
    assert str(times[0])[:10] == "2024-03-01"


def test_spellings_of_one_user_are_one_user_in_every_format(tmp_path: Path) -> None:
    spellings, times = ["37", " 37", "37.0", "37\u00a0"], SECONDS[:4]
    text = tmp_path / "log.csv"
    lines = [f"{user},i{row},{time}" for row, (user, time) in enumerate(zip(spellings, times, strict=True))]
    text.write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    assert checked(text, tmp_path, **SMALL)["users"] == 1
    numbers = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": [37.0] * 4, "item_id": ["a", "b", "c", "d"], "timestamp": times}), numbers)
    checked(numbers, tmp_path, format="parquet", **SMALL)
    assert set(rows_of(tmp_path)["user_id"].to_pylist()) == {"37"}


def test_floats_that_cannot_distinguish_ids_are_refused(tmp_path: Path) -> None:
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


NAMES = ("user_id", "item_id", "rating", "timestamp")


def test_an_unclosed_quote_stops_the_run_with_its_line(tmp_path: Path) -> None:
    lines = ["user_id,item_id,note,timestamp", *(f'u{row},"i, {row}",ok,{SECONDS[row]}' for row in range(50))]
    lines[21] = f'u1,i1,"never closed,{SECONDS[20]}'
    (tmp_path / "log.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 22 opens a quote that is never closed"):
        checked(tmp_path / "log.csv", tmp_path, **SMALL)


def test_a_field_that_swallows_rows_is_named_where_quotes_balance(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp,note", *(f"u{row},i{row},{SECONDS[row]},ok" for row in range(90))]
    lines[10] += ' "more'
    lines[11] = f'u1,i1,{SECONDS[10]},"begins here'
    lines[50] += '"'
    (tmp_path / "log.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match="no field has swallowed rows") as error:
        checked(tmp_path / "log.csv", tmp_path, **SMALL)
    assert "the lines 12 to 51; 38 lines within fields look like rows" in error.value.details


def test_texts_of_many_lines_are_no_damage_and_lines_are_counted(tmp_path: Path) -> None:
    rows = [f'u{row},i{row},"says ""so"",\n\nat length",{SECONDS[row]}\n\n' for row in range(40)]
    bad = f'u1,i1,"5\'" high,{SECONDS[0]},\n'
    (tmp_path / "log.csv").write_text("user_id,item_id,note,timestamp\n" + "".join(rows) + bad)
    with pytest.raises(UserError) as error:
        checked(tmp_path / "log.csv", tmp_path, **SMALL)
    assert f"line 162: 5 fields, but there are 4 columns: {bad.strip()}" in error.value.details
    page = (tmp_path / "out.failed" / "validation.html").read_text()
    assert "5 fields, but there are 4 columns" in page
    assert "high" not in page, "it may name a user who is to be forgotten"
    found = checked(tmp_path / "log.csv", tmp_path, max_quarantine_share=0.1, **SMALL)
    assert (found["accepted"], found["quarantined"]) == (40, 1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    text = written(tmp_path, SECONDS).read_text().replace("u1", "zoë")
    (tmp_path / "log.csv").write_text(text, encoding=encoding)
    checked(tmp_path / "log.csv", tmp_path, **SMALL)
    assert set(rows_of(tmp_path)["user_id"].to_pylist()) == {"u0", "zoë", "u2"}


def test_an_encoding_that_is_not_found_is_asked_for_with_the_line_and_read_once_it_is_set(tmp_path: Path) -> None:
    text = written(tmp_path, SECONDS).read_text().replace("u1,i4,", "zoë,i4,")
    (tmp_path / "log.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"line 6 is not UTF-8; set validate\.csv\.encoding"):
        checked(tmp_path / "log.csv", tmp_path, **SMALL)
    checked(tmp_path / "log.csv", tmp_path, csv=CsvConfig(encoding="latin-1"), **SMALL)
    assert "zoë" in rows_of(tmp_path)["user_id"].to_pylist()


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ('"u,{n}"::"i{n}::{t}', {"delimiter": "::", "quote": ""}),
        ("u{n}~i\\~{n}~{t}", {"delimiter": "~", "escape": "\\"}),
        ("'u,{n}','i{n}',{t}", {"quote": "'"}),
    ],
)
def test_delimiter_quote_and_escape_can_be_set_and_names_given(tmp_path: Path, row: str, options: dict) -> None:
    rows = [row.format(n=n, t=SECONDS[n]) for n in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    csv = CsvConfig(names=("user_id", "item_id", "timestamp"), **options)
    assert checked(tmp_path / "log.csv", tmp_path, csv=csv, **SMALL)["accepted"] == 60
    assert "'" not in rows_of(tmp_path)["user_id"][0].as_py()


def test_a_log_without_a_header_names_the_option_to_set(tmp_path: Path) -> None:
    log = written(tmp_path, SECONDS)
    log.write_text(log.read_text().partition("\n")[2])
    with pytest.raises(UserError, match="looks like data: name its columns, all of them in order, with"):
        checked(log, tmp_path, **SMALL)
    found = checked(log, tmp_path, csv=CsvConfig(names=("user_id", "item_id", "timestamp")), **SMALL)
    assert found["accepted"] == len(SECONDS)


def test_the_layout_and_three_rows_are_logged_before_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "elcrec")
    with pytest.raises(UserError):
        checked(written(tmp_path, SECONDS), tmp_path, min_rows=10**6)
    said = caplog.messages
    assert "csv, not packed, utf-8, delimiter ','" in said[0]
    assert "columns user_id, item_id, timestamp" in said[0]
    assert next(line for line in said if "read as" in line).endswith("time '1709272104' = 2024-03-01T05:48:24.000000")
    assert sum("read as user" in line for line in said) == 3


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("path", ["logs", "logs/*.csv*", "logs/**/*.csv*"])
def test_a_folder_and_a_pattern_of_texts_are_one_log(tmp_path: Path, path: str, header: bool) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    lines = written(tmp_path, SECONDS).read_text().splitlines()
    for part, rows in enumerate((lines[1:40], lines[40:])):
        text = "\n".join([*lines[: int(header)], *rows])
        with pa.output_stream(str(folder / f"{part}.csv.gz"), compression="gzip" if part else None) as file:
            file.write(text.encode())
    (folder / "_SUCCESS").touch()
    csv = CsvConfig() if header else CsvConfig(names=("user_id", "item_id", "timestamp"))
    assert checked(tmp_path / path, tmp_path, csv=csv, **SMALL)["accepted"] == len(SECONDS)


def test_files_with_other_columns_than_the_first_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for name, line in (("a.csv", "user_id,item_id,timestamp"), ("b.csv", "item_id,user_id,timestamp")):
        (tmp_path / "logs" / name).write_text(f"{line}\nx,y,1709272104\n")
    with pytest.raises(UserError, match=r"b\.csv: its first line differs from that of"):
        checked(tmp_path / "logs", tmp_path, **SMALL)


def test_a_partitioned_folder_of_spark_gives_the_columns_of_its_names(tmp_path: Path) -> None:
    for day in ("2024-03-01", "2024-03-02"):
        (tmp_path / "logs" / f"day={day}").mkdir(parents=True)
        table = pa.table({"user_id": ["a", "b"], "item_id": [1, 2]})
        pq.write_table(table, tmp_path / "logs" / f"day={day}" / "part-0.parquet")
    (tmp_path / "logs" / "_SUCCESS").touch()
    checked(tmp_path / "logs", tmp_path, format="parquet", time_column="day", **SMALL)
    assert {str(moment)[:10] for moment in rows_of(tmp_path)["timestamp"].to_pylist()} == {"2024-03-01", "2024-03-02"}


def test_the_case_of_an_open_quote(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1502 opens a quote that is never closed"):
        checked(case("01_open_quote.csv"), tmp_path)


def test_the_case_of_a_trailing_comma_shows_the_line_and_counts_its_fields(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        checked(case("27_trailing_comma.csv"), tmp_path)
    assert "line 2: 4 fields, but there are 3 columns: u036,i001,2024-03-01T05:48:24Z," in error.value.details


def test_the_cases_of_no_header_json_lines_and_a_folder_are_read(tmp_path: Path) -> None:
    assert checked(case("21_no_header.csv"), tmp_path, csv=CsvConfig(names=NAMES))["accepted"] == 400
    columns = {"user_column": "reviewerID", "item_column": "asin", "time_column": "unixReviewTime"}
    assert checked(case("23_reviews.jsonl"), tmp_path, format="jsonl", **columns)["accepted"] == 400
    assert checked(case("24_spark_folder"), tmp_path, format="parquet")["accepted"] == 400


def test_one_user_with_an_implausible_share_is_named_and_by_option_left_out(tmp_path: Path) -> None:
    log = written(tmp_path, SECONDS)
    plain = [f"u{row},i{row},{SECONDS[row]}" for row in range(60)]
    log.write_text(
        "\n".join(["user_id,item_id,timestamp", *plain, *(f"bot,i{row},{SECONDS[row]}" for row in range(90))])
    )
    assert checked(log, tmp_path, **SMALL)["warnings"] == 1
    report = read_json(tmp_path / "out" / "validation.json")
    (named,) = [check for check in report["checks"] if not check["passed"]]
    assert named["observed"] == "'bot' has 90 of 150 events (60.0%)"
    found = checked(log, tmp_path, leave_out_heavy=True, **SMALL)
    assert (found["accepted"], found["users"], found["quarantined"], found["warnings"]) == (60, 60, 0, 0)
    assert "bot" not in rows_of(tmp_path)["user_id"].to_pylist()


def test_ids_that_look_alike_are_counted_and_shown(tmp_path: Path) -> None:
    log = written(tmp_path, SECONDS)
    log.write_text(log.read_text().replace("u1,i4,", "U1,i4,").replace("u2,i5,", "0u2,i5,"))
    checked(log, tmp_path, **SMALL)
    checks = {check["name"]: check for check in read_json(tmp_path / "out" / "validation.json")["checks"]}
    assert checks["users whose ids look alike"]["observed"] == "4, such as '0u2' and 'u2'"
    assert "items whose ids look alike" not in checks


def test_a_log_with_an_order_but_no_time_is_taken(tmp_path: Path) -> None:
    log = written(tmp_path, [len(SECONDS) - row for row in range(len(SECONDS))])
    assert checked(log, tmp_path, time="order", **SMALL)["quarantined"] == 0
    assert read_json(tmp_path / "out" / "validation.json")["time"] == "order"
    sequence = rows_of(tmp_path)["timestamp"].cast(pa.int64()).to_pylist()
    assert sequence == list(range(len(SECONDS), 0, -1))
    checked(log, tmp_path, time="order", time_column="", **SMALL)
    assert rows_of(tmp_path)["timestamp"].cast(pa.int64()).to_pylist() == list(range(1, len(SECONDS) + 1))


def tied_log(folder: Path, order: list[int]) -> Path:
    rows = [f"u{user},i{item:02d},2024-03-01" for user in range(40) for item in order]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return folder / "log.csv"


@pytest.mark.parametrize(
    ("order", "ties", "warned"),
    [
        (list(range(10)), "log", True),
        (list(range(9, -1, -1)), "log", True),
        ([3, 8, 1, 9, 0, 7, 2, 6, 5, 4], "log", False),
        (list(range(10)), "drawn", False),
    ],
)
def test_ties_in_the_order_of_item_ids_are_warned_of_and_can_be_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, order: list[int], ties: str, warned: bool
) -> None:
    checked(tied_log(tmp_path, order), tmp_path, **SMALL)
    config = SequencesConfig(ties=ties)
    caplog.clear()
    found = build_sequences(config, tmp_path / "out", tmp_path / "sequences", engine=ENGINE)
    assert found["num_tied_events"] == 400
    assert any("set sequences.ties=drawn" in line for line in caplog.messages) == warned


def test_a_drawn_order_is_the_same_for_a_seed_and_no_item_comes_first(tmp_path: Path) -> None:
    checked(tied_log(tmp_path, list(range(10))), tmp_path, **SMALL)

    def rows(seed: int) -> list[list[int]]:
        config = SequencesConfig(ties="drawn", ties_seed=seed)
        build_sequences(config, tmp_path / "out", tmp_path / "sequences", engine=ENGINE)
        return pq.read_table(tmp_path / "sequences" / "sequences.parquet")["items"].to_pylist()

    first = rows(0)
    assert first == rows(0) != rows(1)
    assert len({row[0] for row in first}) >= 7
    assert all(sorted(row) == list(range(1, 11)) for row in first)


def test_the_case_of_a_bot_names_it(tmp_path: Path) -> None:
    checked(case("35_bot.csv"), tmp_path)
    checks = read_json(tmp_path / "out" / "validation.json")["checks"]
    assert "89" in next(check["observed"] for check in checks if not check["passed"])


def test_the_cases_of_ties_by_item_id_and_shuffled_differ_in_the_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, warned in (("11_ties_sorted.csv", True), ("11_ties_shuffled.csv", False)):
        caplog.clear()
        checked(case(name), tmp_path)
        build_sequences(SequencesConfig(), tmp_path / "out", tmp_path / "sequences", engine=ENGINE)
        assert any("set sequences.ties=drawn" in line for line in caplog.messages) == warned


EVENTS = [
    ("view", "5", "2024-03-01"),
    ("view", "2", "2024-03-02"),
    ("buy", "", "2024-03-03"),
    ("mail", "4", "2024-03-04"),
    ("buy", "4.5", "2024-03-05"),
]


@pytest.mark.parametrize("layout", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("keep", "items"),
    [
        ({"column": "kind", "values": ("view", "buy")}, [0, 1, 2, 4]),
        ({"rating_column": "stars", "least_rating": 4}, [0, 3, 4]),
        ({"since": "2024-03-02", "before": "2024-03-05"}, [1, 2, 3]),
        ({"column": "kind", "values": ("buy",), "rating_column": "stars", "since": "2024-03-05"}, [4]),
    ],
)
def test_rows_that_do_not_count_are_left_out_and_are_no_fault(
    tmp_path: Path, layout: str, keep: dict, items: list[int]
) -> None:
    kinds, stars, times = (list(column) for column in zip(*EVENTS, strict=True))
    columns = {"user_id": ["u"] * 5, "item_id": [f"i{row}" for row in range(5)], "kind": kinds, "timestamp": times}
    table = pa.table(columns | {"stars": [float(each) if each else None for each in stars]})
    path = tmp_path / f"log.{layout}"
    if layout == "parquet":
        pq.write_table(table, path)
    elif layout == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        path.write_text("\n".join(map(json.dumps, table.to_pylist())))
    found = checked(path, tmp_path, format=layout, keep=KeepConfig(**keep), **SMALL)
    assert [int(item[1:]) for item in rows_of(tmp_path)["item_id"].to_pylist()] == items
    assert (found["rows"], found["quarantined"], found["warnings"]) == (len(items), 0, 0)
    checks = {check["name"]: check for check in read_json(tmp_path / "out" / "validation.json")["checks"]}
    assert checks["rows that do not count"]["observed"] == str(5 - len(items))


def test_repeats_of_a_day_count_by_option_or_have_a_limit_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n" + "u,i,2024-03-01\n" * 3 + "u,j,soon\n" + "u,k,2024-03-01\n" * 6)
    with pytest.raises(UserError, match="share of faulty rows"):
        checked(log, tmp_path, max_quarantine_share=0.1, **SMALL)
    found = checked(log, tmp_path, max_quarantine_share=0.1, max_duplicate_share=0.7, **SMALL)
    assert (found["accepted"], found["quarantined"]) == (2, 8)
    with pytest.raises(UserError, match="share of repeated rows"):
        checked(log, tmp_path, max_quarantine_share=0.1, max_duplicate_share=0.6, **SMALL)
    found = checked(log, tmp_path, max_quarantine_share=0.1, duplicates="keep", **SMALL)
    assert (found["accepted"], found["quarantined"]) == (9, 1)


def test_the_case_of_days_is_taken_with_repeats_kept(tmp_path: Path) -> None:
    assert checked(case("10_day_granularity.csv"), tmp_path, duplicates="keep")["quarantined"] == 0
