"""`python -m benchmarks.stages`: the cost of every stage on logs of growing size, within a given memory.

An interrupted run resumes if `--folder` names the same folder.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.__main__ import bare_job, describe, launch, positive
from benchmarks.growth import STAGES, Log, measure, prepare
from benchmarks.growth_page import render
from benchmarks.page import numbers_of
from benchmarks.runner import say
from elcrec.artifacts import SCHEMA_VERSION, atomic_file, read_json, write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages on a log of each size and write the page; return the exit status."""
    return launch("benchmarks.stages", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory() as scratch:
            folder = (options.folder or Path(scratch)).absolute() / str(rows)
            log = Log(folder, rows, options.memory_mb)
            prepare(log)
            for stage in STAGES:
                if stage in options.stages and stage not in _known(options.out, rows):
                    _record(options.out, log, described, stage, measure(log, stage))
            if not options.keep:
                shutil.rmtree(folder)
    say(f"wrote {options.out}")


def _read(out: Path) -> dict[str, Any]:
    return read_json(numbers_of(out))["sizes"] if numbers_of(out).is_file() else {}


def _known(out: Path, rows: int) -> dict[str, Any]:
    stages: dict[str, Any] = _read(out).get(str(rows), {}).get("stages", {})
    return stages


def _record(out: Path, log: Log, facts: dict[str, str], stage: str, numbers: dict[str, float]) -> None:
    sizes = _read(out)
    one = sizes.get(str(log.rows), {})
    stages = {**one.get("stages", {}), stage: numbers}
    # A run that resumes another one measures some stages; the facts of the others remain.
    runs = [run for run in one.get("runs", []) if run != facts] + [facts]
    sizes[str(log.rows)] = {"memory_mb": log.memory_mb, "runs": runs, "stages": stages}
    write_json(numbers_of(out), {"schema_version": SCHEMA_VERSION, "sizes": sizes})
    with atomic_file(out) as temporary:
        temporary.write_text(render(sizes), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--rows", type=positive, nargs="+", default=[1_000_000, 10_000_000], help="of the logs")
    parser.add_argument("--memory-mb", type=positive, default=1000, help="engine.memory_mb (default 1000)")
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES), metavar="STAGE")
    parser.add_argument("--folder", type=Path, help="where the logs are made (default: the system's temporary folder)")
    parser.add_argument("--keep", action="store_true", help="leave what was made in the folder")
    parser.add_argument("--out", type=Path, default=Path("docs/SCALE.md"), help="(default docs/SCALE.md)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
