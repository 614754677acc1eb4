"""`python -m benchmarks.stages`: what validate and sequences cost on logs of growing size, within a given memory."""

import argparse
import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks.__main__ import bare_job, describe, launch, positive
from benchmarks.jobs import Numbers
from benchmarks.machine import Facts, peak_mib_of
from benchmarks.markdown import mib, seconds, table
from benchmarks.page import measured_by, numbers_of
from benchmarks.runner import ROOT, say
from elcrec.artifacts import SCHEMA_VERSION, atomic_file, write_json

_BLOCK = 1_000_000
_EVENTS_A_USER = 10
_ITEMS = 100_000
_ZIPF_EXPONENT = 0.8
_FIRST_SECOND, _SECONDS = 1_600_000_000, 100_000_000
_PAUSE = 0.05
_LAST_LETTERS = 2000
_HEAD = """# Scale

What the stages before training cost on random logs of growing size, as CSV. A row is one run of a stage in a process
of its own, with one thread, within the memory that `engine.memory_mb` grants its engine. *Peak* is the largest resident
memory of the process, *spill* the most that its temporary files held. The exponent is that of a stage's CPU time
between the smallest and the largest log: 1 is as the log grows.

Written by `python -m benchmarks.stages`; every number is in the JSON file of the same name. Nothing here is edited by
hand."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both stages on a log of each size and write the page; return the exit status."""
    return launch("benchmarks.stages", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs: dict[str, dict[str, Numbers]] = {}
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            runs[str(rows)] = _run(Path(folder), rows, options.memory_mb)
        write_json(numbers_of(options.out), {"schema_version": SCHEMA_VERSION, "facts": described, "runs": runs})
        with atomic_file(options.out) as temporary:
            temporary.write_text(render(runs, options.memory_mb, described), encoding="utf-8")
    say(f"wrote {options.out}")


def _run(folder: Path, rows: int, memory_mb: int) -> dict[str, Numbers]:
    """Take a random log through the stages; return what each costs."""
    log = folder / "log.csv"
    say(f"making a log of {rows:,} rows …")
    _write_log(log, rows)
    settings = [
        "fetch.dataset=file",
        "fetch.file.format=csv",
        f"fetch.file.path={log}",
        "validate.epoch_unit=s",
        "engine.threads=1",
        f"engine.memory_mb={memory_mb}",
    ]
    options = ["--params", str(ROOT / "params.yaml"), *(word for setting in settings for word in ("--set", setting))]
    _stage(folder, "fetch", *options, "--out", "raw")
    found: dict[str, Numbers] = {}
    for stage, given in {"validate": ("--raw", "raw"), "sequences": ("--interactions", "validated")}.items():
        say(f"{rows:,} rows: {stage} …")
        out = "validated" if stage == "validate" else "sequences"
        found[stage] = _stage(folder, stage, *options, *given, "--out", out) | {"log_mib": log.stat().st_size / 2**20}
    return found


def _write_log(path: Path, rows: int) -> None:
    """Write a log in order of time: ten events a user, items by Zipf's law with exponent 0.8."""
    generator = np.random.default_rng(1)
    popularity = np.cumsum(np.arange(1, _ITEMS + 1) ** -_ZIPF_EXPONENT)
    schema = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()})
    with pa.csv.CSVWriter(path, schema) as writer:
        for start in range(0, rows, _BLOCK):
            size = min(_BLOCK, rows - start)
            users = generator.integers(0, max(1, rows // _EVENTS_A_USER), size)
            items = np.searchsorted(popularity, generator.random(size) * popularity[-1])
            times = _FIRST_SECOND + (np.arange(start, start + size) * (_SECONDS / rows)).astype(np.int64)
            columns = [pa.array(users).cast(pa.string()), pa.array(items).cast(pa.string()), pa.array(times)]
            writer.write_table(pa.table(columns, schema=schema))


def _stage(folder: Path, stage: str, *arguments: str) -> Numbers:
    """Run a stage in `folder`; return its CPU and wall seconds, its peak memory and the most that it spilled.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    started, peak, spilled = time.perf_counter(), 0.0, 0.0
    with (folder / "said.txt").open("w+", encoding="utf-8") as said:
        command = [sys.executable, "-m", "elcrec", stage, *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said)
        while True:
            peak, spilled = max(peak, peak_mib_of(process.pid)), max(spilled, _spilled_mib(folder))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(_PAUSE)
        if status:
            said.seek(0)
            raise RuntimeError(f"{stage} failed:\n{said.read()[-_LAST_LETTERS:]}")
    wall = time.perf_counter() - started
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "peak_mib": peak, "spilled_mib": spilled}


def _spilled_mib(folder: Path) -> float:
    total = 0
    for file in folder.glob(".*.partial/temporary/*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total / 2**20


def render(runs: Mapping[str, Mapping[str, Numbers]], memory_mb: int, described: Facts) -> str:
    """Return the page."""
    head = ["stage", "rows", "log MiB", "CPU s", "wall s", "peak MiB", "spill MiB"]
    stages = next(iter(runs.values()))
    rows = [
        [
            stage,
            f"{int(size):,}",
            *(
                mib(one["log_mib"]),
                seconds(one["cpu"]),
                seconds(one["wall"]),
                mib(one["peak_mib"]),
                mib(one["spilled_mib"]),
            ),
        ]
        for stage in stages
        for size, one in ((size, found[stage]) for size, found in runs.items())
    ]
    parts = [_HEAD, f"The engine may take {memory_mb:,} MB.", table(head, rows)]
    if len(runs) > 1:
        growth = (
            f"{stage} {_exponent({size: found[stage]['cpu'] for size, found in runs.items()}):.2f}" for stage in stages
        )
        parts.append(f"Exponents: {', '.join(growth)}.")
    return "\n\n".join([*parts, measured_by(described)]) + "\n"


def _exponent(costs: Mapping[str, float]) -> float:
    """Return how costs grow with sizes, between the first and the last."""
    sizes = list(costs)
    return math.log(costs[sizes[-1]] / costs[sizes[0]]) / math.log(int(sizes[-1]) / int(sizes[0]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--rows", type=positive, nargs="+", default=[1_000_000, 10_000_000], help="of the logs")
    parser.add_argument("--memory-mb", type=positive, default=1000, help="engine.memory_mb (default 1000)")
    parser.add_argument("--folder", type=Path, help="where the logs are made (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, default=Path("docs/SCALE.md"), help="(default docs/SCALE.md)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
