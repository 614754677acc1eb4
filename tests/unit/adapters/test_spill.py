"""Three million events with 256 MB: the rest spills to disk, and neither a kill nor a full disk leaves files."""

import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.machine import peak_mib_of
from elcrec.artifacts import write_json
from elcrec.custody import write_checksums
from elcrec.data.interactions import interaction_schema
from elcrec.data.times import TIMESTAMP

pytestmark = pytest.mark.slow

EVENTS, USERS, ITEMS = 3_000_000, 300_000, 30_000
MEMORY_MB, PEAK_MIB = 256, 1024
FILES = ("sequences.parquet", "histories.parquet", "items.parquet", "split.json")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: its exit status and error, most MiB in memory, and most bytes seen in the spill folder."""

    status: int
    error: str
    peak: float
    spilled: int


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the interactions of a validated log."""
    folder = tmp_path_factory.mktemp("spill")
    (folder / "validated").mkdir()
    write_json(folder / "validated" / "validation.json", {"time": "real"})
    random = np.random.default_rng(0)
    with pq.ParquetWriter(folder / "validated" / "interactions.parquet", interaction_schema()) as writer:
        for start in range(0, EVENTS, EVENTS // 10):
            size = EVENTS // 10
            users = pa.array(random.integers(0, USERS, size)).cast(pa.string())
            items = pa.array(np.minimum(random.zipf(1.3, size), ITEMS)).cast(pa.string())
            times = pa.array(start * 1_000_000 + random.integers(0, 10**12, size)).cast(TIMESTAMP)
            long = pa.repeat(pa.scalar("user-of-a-uuid-s-length-0000"), size)
            user_ids = pa.compute.binary_join_element_wise(long, users, "-")
            writer.write_table(pa.table([user_ids, items, times], schema=writer.schema))
    write_checksums(folder / "validated")
    return folder


def run(work: Path, out: str, *, largest_file: int | None = None, kill_at: int | None = None) -> Outcome:
    """Run the stage sequences in a process of its own; kill it once it has spilled so many bytes."""

    def limit() -> None:
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    settings = [f"engine.memory_mb={MEMORY_MB}", "engine.threads=1", f"engine.spill={work / 'fast'}"]
    options = [part for setting in settings for part in ("--set", setting)]
    (work / "params.yaml").write_text("{}\n")
    files = ["--params", "params.yaml", "--interactions", "validated", "--out", out]
    command = [sys.executable, "-m", "elcrec", "sequences", *files, *options]
    with (work / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=work, stderr=errors, stdout=errors, preexec_fn=limit)  # noqa: PLW1509
    status, peak, spilled = _follow(process.pid, lambda: _bytes_in(work / "fast"), kill_at)
    process.returncode = status
    return Outcome(status, (work / "errors").read_text(), peak, spilled)


def _follow(pid: int, size: Callable[[], int], kill_at: int | None) -> tuple[int, float, int]:
    peak, most = 0.0, 0
    while True:
        peak = max(peak, peak_mib_of(pid))
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), peak, most
        most = max(most, size())
        if kill_at is not None and most > kill_at:
            os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait([], 0.02)


def _bytes_in(folder: Path) -> int:
    total = 0
    # Files go away meanwhile, and so do folders.
    with suppress(FileNotFoundError):
        for path in folder.rglob("duckdb_temp_*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def leftovers(work: Path) -> list[str]:
    return [str(path) for path in [*work.rglob("*.partial"), *(work / "fast").glob("*")]]


@pytest.fixture(scope="module")
def undisturbed(work: Path) -> Outcome:
    return run(work, "undisturbed")


def test_memory_stays_small_and_the_rest_is_on_disk(undisturbed: Outcome, work: Path) -> None:
    assert undisturbed.status == 0, undisturbed.error
    assert 0 < undisturbed.peak < PEAK_MIB
    assert undisturbed.spilled > 10_000_000
    assert leftovers(work) == []


def test_a_run_that_was_killed_while_it_spilled_is_run_again_to_the_same_bytes(
    undisturbed: Outcome, work: Path
) -> None:
    killed = run(work, "out", kill_at=10_000_000)
    assert killed.status == -signal.SIGKILL
    assert leftovers(work) != []
    assert not (work / "out").exists()

    again = run(work, "out")

    assert again.status == undisturbed.status == 0
    assert digests(work / "out") == digests(work / "undisturbed")
    assert leftovers(work) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(work: Path) -> None:
    """The system refuses a file to grow beyond 4 MB, as it refuses every file on a disk that is full."""
    found = run(work, "full", largest_file=4 << 20)
    assert found.status == 2
    *progress, line = found.error.splitlines()
    assert all(re.fullmatch(r"\w+: .*\d+ s", said) for said in progress), found.error
    assert line.startswith("elcrec: error: ")
    assert "the disk is full" in line
    assert "set engine.spill to a folder on a larger disk" in line
    assert not (work / "full").exists()
    assert leftovers(work) == []
