"""Kills, full disks and unusual environments: a one-line error or success, then the undisturbed outcome."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "surroundings.py"
pytestmark = pytest.mark.timeout(1500)  # everything is done once, for all tests of this file
SMALL_SHM = 'mount -t tmpfs -o size=64k tmpfs /dev/shm 2>/dev/null; exec "$@"'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of everything, where the system permits it with next to no shared memory."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("surroundings"))]
    apart = ["unshare", "--mount", "sh", "-c", SMALL_SHM, "sh"]
    permitted = shutil.which("unshare") and subprocess.run([*apart, "true"], check=False).returncode == 0
    done = subprocess.run(
        [*apart, *command] if permitted else command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("few_files", ""),
        ("little_memory", "(out of memory|can't start new thread)?"),
        ("small_files", "File too large"),
        ("files_of_the_future", ""),
        ("through_links", ""),
    ],
)
def test_odd_surroundings_are_one_line_or_success_and_leave_nothing_half_written(
    found: dict[str, Any], condition: str, line: str
) -> None:
    said, again, *wrong = found["odd"][condition]
    assert re.fullmatch(rf"elcrec: error: .*{line}.*" if said else line, said)
    assert (again, wrong) == ("", [])


def test_killed_and_repeated_work_has_the_undisturbed_outcome(found: dict[str, Any]) -> None:
    assert len(found["killed"]) == 4
    assert {name: faults for name, faults in found["killed"].items() if faults != []} == {}


def test_a_full_disk_is_one_line_and_with_room_the_same_command_ends_as_ever(found: dict[str, Any]) -> None:
    if found["disks"] is None:
        pytest.skip(found["no disks"])
    assert [each for each in found["disks"] if each["faults"]] == []
    assert {each["stage"] for each in found["disks"] if each["refused"]} == {"train", "push"}
