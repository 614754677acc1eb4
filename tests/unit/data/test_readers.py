import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.data import lines, readers
from elcrec.data.json_lines import scan_json_lines
from elcrec.data.raw_columns import Columns
from elcrec.data.readers import read_log
from elcrec.errors import UserError


def read_csv(folder: Path, content: str | bytes, columns: Columns | None = None) -> pa.Table:
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return pa.concat_tables(read_log([path], "csv", columns).parts)


def read_parquet(folder: Path, columns: dict[str, Any]) -> pa.Table:
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return pa.concat_tables(read_log([folder / "data.parquet"], "parquet").parts)


def ids(log: pa.Table) -> list[tuple[str | None, str | None]]:
    return list(zip(log["user_id"].to_pylist(), log["item_id"].to_pylist(), strict=True))


def test_csv_survives_bom_crlf_quotes_blank_lines_and_extra_columns(tmp_path: Path) -> None:
    content = '\ufeffnote,user_id,item_id,timestamp\r\n"a\nb","u,1","say ""hi""",1\r\n\r\nx,ü2,商品,2\r\n'
    log = read_csv(tmp_path, content)
    assert ids(log) == [("u,1", 'say "hi"'), ("ü2", "商品")]
    assert log.column_names == ["torn", "user_id", "item_id", "micros", "given", "raw_time"]


def test_csv_lines_with_another_number_of_fields_keep_their_place_and_nothing_else(tmp_path: Path) -> None:
    log = read_csv(tmp_path, "user_id,item_id,timestamp\nu1,i1,1\nu2,i2\nu3,i3,3\nu4,i4,4,5\n")
    assert log["torn"].to_pylist() == [False, True, False, True]
    assert ids(log) == [("u1", "i1"), (None, None), ("u3", "i3"), (None, None)]
    assert log["given"].to_pylist() == [True, False, True, False]


@pytest.mark.parametrize("block", [60, 200, 1000])
def test_csv_in_blocks_gives_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    lines = [f"u{n},i{n},{n}" if n % 7 % 3 else f"u{n},{n}" for n in range(200)]
    content = "\n".join(["user_id,item_id,timestamp", *lines, ""])
    whole = read_csv(tmp_path, content)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", block)
    assert read_csv(tmp_path, content).equals(whole)
    assert whole["torn"].to_pylist() == [line.count(",") == 1 for line in lines]


def test_a_log_of_torn_lines_alone_is_read(tmp_path: Path) -> None:
    log = read_csv(tmp_path, "user_id,item_id,timestamp\nu1\nu2\n")
    assert log["torn"].to_pylist() == [True, True]


def test_times_of_mixed_forms_are_the_same_in_parts_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = ["1", "2026-01-01", "9007199254740993", "1.5", "soon", ""] * 20
    content = "\n".join(["user_id,item_id,timestamp", *(f"u,i,{time}" for time in times), ""])
    columns = Columns(epoch_unit="us")
    whole = read_csv(tmp_path, content, columns)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 60)
    assert read_csv(tmp_path, content, columns).equals(whole)
    assert whole["micros"].to_pylist()[:6] == [1, 1_767_225_600_000_000, 9_007_199_254_740_993, 2, None, None]


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("b.csv", "a.csv")]
    for file in files:
        file.write_text(f"user_id,item_id,timestamp\n{file.stem},i,1\n")
    log = read_log(files, "csv")
    assert ids(pa.concat_tables(log.parts)) == [("b", "i"), ("a", "i")]


def test_files_without_ids_of_events_beside_one_with_them_have_no_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp,event_id\nu,j,2,e\n")
    log = read_log([tmp_path / "a.csv", tmp_path / "b.csv"], "csv")
    assert log.event_ids
    assert pa.concat_tables(log.parts)["event_id"].to_pylist() == [None, "e"]


def read_jsonl(folder: Path, *texts: str | bytes, columns: Columns | None = None) -> pa.Table:
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts))
    return pa.concat_tables(read_log([path], "jsonl", columns).parts)


def test_json_lines_hold_text_numbers_nulls_and_other_keys(tmp_path: Path) -> None:
    log = read_jsonl(
        tmp_path,
        '\ufeff{"user_id": "ü\\u0000", "item_id": 7, "timestamp": "2026-01-01", "event_id": "e", "more": [{"a": 1}]}',
        "",
        '{"item_id": 12345678901234567890, "user_id": 1.0, "timestamp": 1.5}\r',
        ' {"item_id": null, "user_id": "", "timestamp": 1767225600}',
    )
    assert ids(log) == [("ü\0", "7"), ("1", "12345678901234567890"), (None, None)]
    assert log["micros"].to_pylist() == [1_767_225_600_000_000, 1_500_000, 1_767_225_600_000_000]
    assert log["event_id"].to_pylist() == ["e", None, None]


def test_json_lines_that_are_no_plain_object_keep_their_place_and_nothing_else(tmp_path: Path) -> None:
    good = '{"user_id": "u", "item_id": "i", "timestamp": 1}'
    torn = ["{", "[1]", "7", '{"user_id": ["u"]}', '{"user_id": true}', f"{good} {good}", '{"user_id": "\\ud800"}']
    log = read_jsonl(tmp_path, *torn, good, b'{"user_id": "\xff"}', good)
    assert log["torn"].to_pylist() == [True] * 7 + [False, True, False]
    assert ids(log)[7:] == [("u", "i"), (None, None), ("u", "i")]


def test_json_lines_in_blocks_give_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f'{{"user_id": {n}, "item_id": "商{n}", "timestamp": {n}}}' if n % 5 else "{" for n in range(100)]
    whole = read_jsonl(tmp_path, *rows)
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 100)
    assert read_jsonl(tmp_path, *rows).equals(whole)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_json_lines_are_recognised_by_their_content(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    rows = "".join(f'{{"user_id": "u{n}", "item_id": {n}, "timestamp": {n}}}\n' for n in range(100)).encode()
    assert read_jsonl(tmp_path, pack(rows)).equals(read_jsonl(tmp_path, rows))


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_json_lines_know_the_lines_on_which_rows_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_BYTES", block)
    texts = ["\ufeff", '{"a": 1}', "", " \t", '{"a": 2}', '  {"a": 3}\r', "\r", '{"a": 4}']
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(texts), encoding="utf-8", newline="")
    found = scan_json_lines(path)
    assert found.of_rows(np.arange(4)).tolist() == [2, 5, 6, 8]
    assert found.count == 8


def test_a_key_that_no_json_line_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no line has a value of 'timestamp'.*validate.user_column"):
        read_jsonl(tmp_path, '{"user_id": "u", "item_id": "i", "time": 1}')


def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(lines, "_LONGEST_LINE", 1000)
    with pytest.raises(UserError, match="a line is longer than"):
        read_jsonl(tmp_path, "[" + "1, " * 1000)


def test_text_that_is_no_utf_8_in_a_parquet_file_is_refused(tmp_path: Path) -> None:
    users = pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"user_id": users, "item_id": ["i"], "timestamp": [1]}), tmp_path / "data.parquet")
    with pytest.raises(UserError, match="not readable as parquet"):
        list(read_log([tmp_path / "data.parquet"], "parquet").parts)


def test_empty_and_blank_fields_are_absent_but_na_is_an_id(tmp_path: Path) -> None:
    log = read_csv(tmp_path, 'user_id,item_id,timestamp\n,NA,1\n"  ",null,\n')
    assert ids(log) == [(None, "NA"), (None, "null")]
    assert log["raw_time"].to_pylist() == ["1", None]


def test_leading_zeros_and_huge_numbers_stay_in_text_ids(tmp_path: Path) -> None:
    big = "9" * 40
    assert ids(read_csv(tmp_path, f"user_id,item_id,timestamp\n007,{big},1\n")) == [("007", big)]


def test_an_id_of_two_million_characters_is_read(tmp_path: Path) -> None:
    log = read_csv(tmp_path, f"user_id,item_id,timestamp\n{'x' * 2_000_000},i,1\nu,i,2\n")
    assert len(log["user_id"][0].as_py()) == 2_000_000


def test_columns_are_found_by_their_configured_names(tmp_path: Path) -> None:
    columns = Columns(user="who", item="what", time="when", epoch_unit="ms")
    log = read_csv(tmp_path, "what,when,who\ni,1000,u\n", columns)
    assert ids(log) == [("u", "i")]
    assert log["micros"].to_pylist() == [1_000_000]


@pytest.mark.parametrize(
    "users",
    [
        pa.array([1, None]),
        pa.array([1.0, None]),
        pa.array(["1", None]),
        pa.array(["1", None]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_parquet_ids_of_any_plain_type_become_the_same_text(tmp_path: Path, users: pa.Array) -> None:
    log = read_parquet(tmp_path, {"user_id": users, "item_id": ["a", "b"], "timestamp": [1, 2], "extra": [[1], [2]]})
    assert log["user_id"].to_pylist() == ["1", None]


@pytest.mark.parametrize(
    ("name", "values"),
    [("user_id", [[1]]), ("user_id", [1.5]), ("item_id", [True]), ("item_id", [None]), ("timestamp", [[1]])],
)
def test_parquet_columns_of_an_unusable_type_are_refused_by_name(tmp_path: Path, name: str, values: list[Any]) -> None:
    with pytest.raises(UserError, match=f"column '{name}' has type"):
        read_parquet(tmp_path, {"user_id": ["u"], "item_id": ["i"], "timestamp": [1]} | {name: values})


def test_a_missing_column_names_what_the_file_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'timestamp'; the file has 'user_id', 'item_id', 'time'"):
        read_csv(tmp_path, "user_id,item_id,time\nu,i,1\n")


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="occurs twice"):
        read_csv(tmp_path, "user_id,user_id,item_id,timestamp\nu,v,i,1\n")


@pytest.mark.parametrize(
    ("layout", "content", "said"),
    [
        ("csv", b"PAR1 and more", "is Parquet, not csv; set fetch.file.format=parquet"),
        ("jsonl", b"PAR1 and more", "is Parquet, not jsonl"),
        ("csv", b"PK\x03\x04 and more", "is a zip archive, or a spreadsheet; unpack it"),
        ("benchmark", bz2.compress(b"PK\x03\x04 and more"), "is a zip archive"),
        ("csv", b'\xef\xbb\xbf {"user_id": 1}\n', "is JSON, not CSV; set fetch.file.format=jsonl"),
        ("csv", b'[{"user_id": 1}]', r"is JSON, not CSV; .*jq -c"),
        ("csv", b"user_id,item_id,timestamp\ru,i,1\r", "a carriage return only"),
        ("jsonl", b'[{"user_id": 1},\n{"user_id": 2}]', r"no line has a value .*from an array: jq -c"),
    ],
)
def test_a_file_of_another_format_is_called_what_it_is(tmp_path: Path, layout: Any, content: bytes, said: str) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(read_log([tmp_path / "data"], layout).parts)


@pytest.mark.parametrize("layout", ["csv", "parquet", "jsonl", "benchmark"])
@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 40, b"\xff\xfe\x00\n"])
def test_an_error_about_a_broken_file_is_one_printable_line(tmp_path: Path, layout: Any, content: bytes) -> None:
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_log([path], layout).parts)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500
