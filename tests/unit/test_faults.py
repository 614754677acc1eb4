"""What the surroundings do to us is one line; what is our own fault stays a traceback."""

import errno
import os
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from elcrec import cli
from elcrec.faults import explain


def wrapped(inner: Exception, outer: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/model")
CASES: dict[str, tuple[BaseException, str]] = {
    "full disk": (FULL, "/disk/model: No space left on device; free some space"),
    "full disk, by a library's own error": (
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "No space left on device; free some space",
    ),
    "wrapped": (wrapped(FULL, RuntimeError("could not save")), "/disk/model: No space left on device"),
    "read-only": (
        OSError(errno.EROFS, "Read-only file system", "/ro/a"),
        "/ro/a: Read-only file system; name a folder",
    ),
    "no permission": (
        PermissionError(errno.EACCES, "Permission denied", "/a"),
        "/a: Permission denied; give this user",
    ),
    "registry is none": (sqlite3.DatabaseError("file is not a database"), "file is not a database; restore the store"),
    "read-only registry": (sqlite3.OperationalError("attempt to write a readonly database"), "readonly database; name"),
    "too many files": (OSError(errno.EMFILE, "Too many open files"), "Too many open files; allow more"),
    "out of memory": (MemoryError(), "out of memory"),
    "no room for a thread": (
        RuntimeError("can't start new thread"),
        "can't start new thread; allow more address space",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_of_the_surroundings_is_one_line(case: str) -> None:
    error, said = CASES[case]
    explained = explain(error)
    assert explained is not None
    assert said in str(explained)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("rank"), FileNotFoundError(errno.ENOENT, "no", "/x")])
def test_a_mistake_of_ours_is_not_explained_away(error: Exception) -> None:
    assert explain(error) is None


def test_a_command_that_meets_one_exits_2_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text("fetch: {synthetic: {users: 50, items: 40}}")

    def full(*_: object, **__: object) -> None:
        raise pa.ArrowException("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    command = ["fetch", "--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "raw")]
    assert cli.main(command) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"elcrec: error: {tmp_path / 'raw'}: No space left on device; free some space and run the same command again"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
