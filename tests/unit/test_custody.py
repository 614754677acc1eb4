"""What a stage wrote is compared with what the next one reads."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import read_json, write_json
from elcrec.custody import CHECKSUMS, announce_rewrite, announced, stage_output, verify
from elcrec.data.erasure import erase_user
from elcrec.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with stage_output(tmp_path / "out") as scratch:
        (scratch / "data.bin").write_bytes(b"data")
        (scratch / "page.html").write_text("14:03")
        (scratch / "measured.json").write_text("{}")
        users = pa.table({"user_id": ["ann", "bob"], "item_ids": [["i1"], ["i2"]]})
        pq.write_table(users, scratch / "histories.parquet")
    return tmp_path / "out"


def test_pages_and_what_was_measured_are_no_part_of_the_checksums(folder: Path) -> None:
    before = (folder / CHECKSUMS).read_bytes()
    assert sorted(read_json(folder / CHECKSUMS)["files"]) == ["data.bin", "histories.parquet"]
    with stage_output(folder) as scratch:
        (scratch / "data.bin").write_bytes(b"data")
        (scratch / "page.html").write_text("15:04")
        users = pa.table({"user_id": ["ann", "bob"], "item_ids": [["i1"], ["i2"]]})
        pq.write_table(users, scratch / "histories.parquet")
    assert (folder / CHECKSUMS).read_bytes() == before


def test_an_untouched_folder_is_read(folder: Path) -> None:
    verify(folder, "data.bin", "histories.parquet", optional=["never.written"])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"dbta", "changed since its stage wrote it"), (b"", "changed since"), (None, "no such file")],
)
def test_a_changed_or_missing_file_is_refused_by_name(folder: Path, content: bytes | None, said: str) -> None:
    (folder / "data.bin").unlink()
    if content is not None:
        (folder / "data.bin").write_bytes(content)
    with pytest.raises(UserError, match=rf"data\.bin: {said}"):
        verify(folder, optional=["data.bin"])


def test_a_file_that_came_later_is_refused(folder: Path) -> None:
    (folder / "rules.json").write_text("{}")
    with pytest.raises(UserError, match=r"rules\.json: not in checksums\.json"):
        verify(folder, optional=["rules.json"])


@pytest.mark.parametrize("content", ["{", "[]", '{"files": {"data.bin": 3}}', '{"schema_version": 9, "files": {}}'])
def test_damaged_checksums_are_refused(folder: Path, content: str) -> None:
    (folder / CHECKSUMS).write_text(content)
    with pytest.raises(UserError, match=r"checksums\.json"):
        verify(folder, "data.bin")


def test_a_folder_of_an_earlier_version_is_read_and_a_line_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / CHECKSUMS).unlink()
    with caplog.at_level(logging.INFO):
        verify(folder, "data.bin")
    (line,) = [record.message for record in caplog.records]
    assert "read unverified" in line


def test_an_erasure_leaves_a_folder_that_verifies(folder: Path) -> None:
    assert list(erase_user(folder, "ann", ("user_id",))) == [folder / "histories.parquet"]
    verify(folder, "data.bin", "histories.parquet")
    assert pq.read_table(folder / "histories.parquet")["user_id"].to_pylist() == ["bob"]


def test_a_killed_erasure_is_reported_and_completed_by_another(folder: Path) -> None:
    path = folder / "histories.parquet"
    announce_rewrite(path)
    pq.write_table(pq.read_table(path).slice(1), path)  # killed here

    with pytest.raises(
        UserError, match=r"histories\.parquet: an erasure was interrupted; run the same `elcrec forget`"
    ):
        verify(folder, "data.bin")
    erase_user(folder, "ann", ("user_id",))

    verify(folder, "data.bin", "histories.parquet")
    assert announced(folder) == []


def test_an_erasure_does_not_accept_a_file_that_was_edited(folder: Path) -> None:
    (folder / "data.bin").write_bytes(b"edited")
    erase_user(folder, "ann", ("user_id",))
    with pytest.raises(UserError, match="changed since"):
        verify(folder, "data.bin")


def test_the_documents_of_an_erased_file_verify_too(tmp_path: Path) -> None:
    with stage_output(tmp_path / "raw") as scratch:
        (scratch / "data.csv").write_text("user_id,item_id\nann,i1\nbob,i2\n")
        write_json(scratch / "source.json", {"format": "csv", "file": "data.csv", "md5": "of before"})
    erase_user(tmp_path / "raw", "ann", ("user_id",))
    verify(tmp_path / "raw", "data.csv", "source.json")
