from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.data.log import RawLog
from elcrec.data.readers import Columns, read_log
from elcrec.errors import UserError


def read_csv(folder: Path, content: str | bytes, columns: Columns | None = None) -> RawLog:
    path = folder / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_log(path, "csv", columns)


def read_parquet(folder: Path, columns: dict[str, Any]) -> RawLog:
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return read_log(folder / "data.parquet", "parquet")


def ids(log: RawLog) -> list[tuple[str | None, str | None]]:
    return list(zip(log.table["user_id"].to_pylist(), log.table["item_id"].to_pylist(), strict=True))


def test_csv_survives_bom_crlf_quotes_blank_lines_and_extra_columns(tmp_path: Path) -> None:
    content = '\ufeffnote,user_id,item_id,timestamp\r\n"a\nb","u,1","say ""hi""",1\r\n\r\nx,ü2,商品,2\r\n'
    log = read_csv(tmp_path, content)
    assert ids(log) == [("u,1", 'say "hi"'), ("ü2", "商品")]
    assert log.table.column_names == ["row", "user_id", "item_id", "timestamp", "raw_time"]
    assert log.time == "real"


def test_csv_lines_with_another_number_of_fields_are_set_aside_by_position(tmp_path: Path) -> None:
    log = read_csv(tmp_path, "user_id,item_id,timestamp\nu1,i1,1\nu2,i2\nu3,i3,3\nu4,i4,4,5\n")
    assert log.malformed == [1, 3]
    assert log.table["row"].to_pylist() == [0, 2]
    assert log.num_rows == 4


def test_empty_and_blank_fields_are_absent_but_na_is_an_id(tmp_path: Path) -> None:
    log = read_csv(tmp_path, 'user_id,item_id,timestamp\n,NA,1\n"  ",null,\n')
    assert ids(log) == [(None, "NA"), (None, "null")]
    assert log.table["raw_time"].to_pylist() == ["1", None]


def test_leading_zeros_and_huge_numbers_stay_in_text_ids(tmp_path: Path) -> None:
    big = "9" * 40
    assert ids(read_csv(tmp_path, f"user_id,item_id,timestamp\n007,{big},1\n")) == [("007", big)]


def test_an_id_of_two_million_characters_is_read(tmp_path: Path) -> None:
    log = read_csv(tmp_path, f"user_id,item_id,timestamp\n{'x' * 2_000_000},i,1\nu,i,2\n")
    assert len(log.table["user_id"][0].as_py()) == 2_000_000


def test_columns_are_found_by_their_configured_names(tmp_path: Path) -> None:
    columns = Columns(user="who", item="what", time="when", epoch_unit="ms")
    log = read_csv(tmp_path, "what,when,who\ni,1000,u\n", columns)
    assert ids(log) == [("u", "i")]
    assert log.table["timestamp"].cast(pa.int64()).to_pylist() == [1_000_000]


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
    assert log.table["user_id"].to_pylist() == ["1", None]


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


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stands twice"):
        read_csv(tmp_path, "user_id,user_id,item_id,timestamp\nu,v,i,1\n")


@pytest.mark.parametrize("layout", ["csv", "parquet", "benchmark"])
@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 40, b"\xff\xfe\x00\n"])
def test_an_error_about_a_broken_file_is_one_printable_line(tmp_path: Path, layout: Any, content: bytes) -> None:
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_log(path, layout)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500
