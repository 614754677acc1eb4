from pathlib import Path

import pyarrow as pa
import pytest

from elcrec.data import benchmark
from elcrec.data.benchmark import refuse_repeated_users
from elcrec.data.log import stage_log
from elcrec.data.readers import read_log
from elcrec.errors import UserError
from tests.support.engines import ENGINE


def read(folder: Path, content: str) -> pa.Table:
    path = folder / "data.txt"
    path.write_bytes(content.encode())
    log = read_log([path], "benchmark")
    assert log.time == "order"
    return pa.concat_tables(log.parts)


def test_position_in_the_line_becomes_seconds_after_1970_began(tmp_path: Path) -> None:
    log = read(tmp_path, "u1 a b a\nu2 c\n")
    assert log["user_id"].to_pylist() == ["u1", "u1", "u1", "u2"]
    assert log["item_id"].to_pylist() == ["a", "b", "a", "c"]
    assert log["micros"].to_pylist() == [1_000_000, 2_000_000, 3_000_000, 1_000_000]


def test_crlf_tabs_blank_lines_and_unicode_separators_inside_ids_behave(tmp_path: Path) -> None:
    log = read(tmp_path, "\ufeffü\ta\u2028b  c \r\n\r\n v d\n")
    assert log["user_id"].to_pylist() == ["ü", "ü", "v"]
    assert log["item_id"].to_pylist() == ["a\u2028b", "c", "d"]


def test_a_line_without_items_is_one_row_without_an_item(tmp_path: Path) -> None:
    log = read(tmp_path, "u1\nu2 a b\nu3\n")
    assert log["item_id"].to_pylist() == [None, "a", "b", None]


def test_a_user_with_two_lines_is_refused_by_the_first_such_name(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("u3 a\nu1 a b\nu2 c\nu2\nu1 d\n")
    with ENGINE.session(tmp_path / "out") as session:
        staged = stage_log(read_log([path], "benchmark"), session.folder / "log.parquet")
        session.scan("log", [staged.file])
        with pytest.raises(UserError, match="user 'u1' has more than one line"):
            refuse_repeated_users(session, path)


def test_blocks_of_lines_give_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(f"u{n} " + "item " * (n % 5) + "\r\n" for n in range(50)) + "last a b"
    whole = read(tmp_path, content)
    monkeypatch.setattr(benchmark, "_BLOCK_CHARACTERS", 40)
    assert read(tmp_path, content).equals(whole)
    assert whole["user_id"].to_pylist()[-2:] == ["last", "last"]


def test_a_file_of_blank_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        read(tmp_path, "\n \n")
