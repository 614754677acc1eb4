from pathlib import Path

import pyarrow as pa
import pytest

from elcrec.data.log import RawLog
from elcrec.data.readers import read_log
from elcrec.errors import UserError


def read(folder: Path, content: str) -> RawLog:
    path = folder / "data.txt"
    path.write_bytes(content.encode())
    return read_log(path, "benchmark")


def test_position_in_the_line_becomes_seconds_after_1970_began(tmp_path: Path) -> None:
    log = read(tmp_path, "u1 a b a\nu2 c\n")
    assert log.time == "order"
    assert log.table["user_id"].to_pylist() == ["u1", "u1", "u1", "u2"]
    assert log.table["item_id"].to_pylist() == ["a", "b", "a", "c"]
    assert log.table["timestamp"].cast(pa.int64()).to_pylist() == [1_000_000, 2_000_000, 3_000_000, 1_000_000]


def test_crlf_tabs_blank_lines_and_unicode_separators_inside_ids_behave(tmp_path: Path) -> None:
    log = read(tmp_path, "\ufeffü\ta\u2028b  c \r\n\r\n v d\n")
    assert log.table["user_id"].to_pylist() == ["ü", "ü", "v"]
    assert log.table["item_id"].to_pylist() == ["a\u2028b", "c", "d"]


def test_a_line_without_items_is_one_row_without_an_item(tmp_path: Path) -> None:
    log = read(tmp_path, "u1\nu2 a b\nu3\n")
    assert log.table["item_id"].to_pylist() == [None, "a", "b", None]
    assert log.table["row"].to_pylist() == [0, 1, 2, 3]


def test_a_user_with_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="user 'u1' has more than one line"):
        read(tmp_path, "u1 a b\nu2 c\nu1 d\n")


def test_a_file_of_blank_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        read(tmp_path, "\n \n")
