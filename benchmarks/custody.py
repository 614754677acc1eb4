"""`python -m benchmarks.custody`: the cost of comparing checksums for each stage, on a log of a million events."""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Numbers
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import elcrec, say
from benchmarks.stage_arguments import ARGUMENTS, arguments_of
from elcrec import custody
from elcrec.artifacts import read_json

_ITEMS, _MEAN_EVENTS, _START = 30_000, 10, 1_750_000_000
_SETTINGS = ("train.epochs=1", "train.device=cpu", "push.gate.floors.ndcg@20=0")
READS: Mapping[str, tuple[str, ...]] = {
    "validate": ("raw",),
    "sequences": ("validated",),
    "train": ("sequences",),
    "evaluate": ("model", "sequences", "raw"),
    "push": ("model", "sequences", "evaluation"),
}
"""The folders that each stage compares; here all their files are compared, so the true share is at most this."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every stage and its comparisons; return the exit status."""
    return launch("benchmarks.custody", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    stages: dict[str, Numbers] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        events = write_log(folder / "log.csv", options.users)
        settings = [*_SETTINGS, "fetch.dataset=file", f"fetch.file.path={folder / 'log.csv'}", "fetch.file.format=csv"]
        for stage in ARGUMENTS:
            say(f"{stage} …")
            with _children_used() as used:
                elcrec(stage, *arguments_of(stage, folder, folder), *(f"--set={each}" for each in settings))
            if stage in READS:
                stages[stage] = {"stage": used[0], **compare(folder / name for name in READS[stage])}
                section: Section = {"facts": described, "users": options.users, "events": events, "stages": stages}
                record(options.out, "custody", section)
    say(f"wrote {options.out}")


def write_log(path: Path, users: int) -> int:
    """Write a random log as CSV; return its number of events."""
    draws = np.random.default_rng(1)
    lengths = 4 + draws.geometric(1 / (_MEAN_EVENTS - 4), users)
    count = int(lengths.sum())
    table = pa.table(
        {
            "user_id": pa.array(np.repeat(np.arange(users), lengths)).cast(pa.string()),
            "item_id": pa.array((draws.random(count) ** 2 * _ITEMS).astype(np.int64)).cast(pa.string()),
            "timestamp": pa.array(_START + np.arange(count)),
        }
    )
    pyarrow.csv.write_csv(table, path)
    return count


def compare(folders: Iterator[Path]) -> Numbers:
    """Compare every file that the folders' checksums name; return processor seconds and MiB."""
    size, started = 0, time.process_time()
    for folder in folders:
        names = list(read_json(folder / custody.CHECKSUMS)["files"])
        custody.verify(folder, *names)
        size += sum((folder / name).stat().st_size for name in names)
    return {"verify": time.process_time() - started, "mib": size / 2**20}


@contextmanager
def _children_used() -> Iterator[list[float]]:
    """Yield a list that gets, at the end, the CPU seconds of the child processes that ended in the block."""
    used: list[float] = []
    before = _of_children()
    yield used
    used.append(_of_children() - before)


def _of_children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.custody", description=__doc__)
    parser.add_argument("--users", type=positive, default=110_000, help="users of ten events each (default 110000)")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="folder to work in (default: the system's temporary folder)"
    )
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
