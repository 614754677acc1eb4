"""One process at a time: who holds a lock is said, and one that died blocks nobody."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from elcrec.custody import stage_output
from elcrec.errors import UserError
from elcrec.locks import held

HOLD = """
import sys, time
from pathlib import Path
from elcrec.locks import held
with held(Path(sys.argv[1]), subject="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """Start a process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_the_holder_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    with holder(path) as process:
        with pytest.raises(UserError, match=rf"^work: in use by process {process.pid} on .*, for 0 min; wait"):
            held(path, subject="work").__enter__()
        process.communicate("")
    with held(path, subject="work"):
        pass
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_stale_and_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".run.lock"
    with holder(path) as process:
        process.kill()
    assert json.loads(path.read_text())["pid"] == process.pid
    with caplog.at_level(logging.INFO), held(path, subject="work"):
        pass
    (line,) = [record.message for record in caplog.records]
    assert f"process {process.pid} on" in line
    assert "is stale" in line
    assert not path.exists()


def test_a_waiting_process_continues_when_the_other_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".push.lock"
    with holder(path) as process, caplog.at_level(logging.INFO):
        assert process.stdin is not None
        release = logging.Handler()
        release.emit = lambda _: process.stdin.close()  # type: ignore[method-assign,union-attr]
        logging.getLogger("elcrec.locks").addHandler(release)
        try:
            with held(path, subject="store", patience=60):
                assert path.exists()
        finally:
            logging.getLogger("elcrec.locks").removeHandler(release)
    assert "waiting until it has ended" in caplog.records[0].message


def test_a_damaged_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("\0[")
    with held(tmp_path / "lock", subject="work"):
        pass


def test_two_runs_of_a_stage_do_not_write_the_same_output(tmp_path: Path) -> None:
    with (
        stage_output(tmp_path / "out") as scratch,
        pytest.raises(UserError, match="out: in use by process"),
        stage_output(tmp_path / "out"),
    ):
        raise AssertionError("the second one began")
    assert not scratch.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
