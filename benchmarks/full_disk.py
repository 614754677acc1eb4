"""`python -m benchmarks.full_disk`: every stage on disks that are too small, then again with more space.

Expected is an error of one line and no partial output, or success; and on the second run the same result as on a large
disk. The disks are file systems in memory, so it needs root and a machine on which root may mount them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import yaml

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.kill_outcome import Outcome, differences, outcome_of
from benchmarks.kill_scenarios import CONFIG, without_pages
from benchmarks.killing import Child, End
from benchmarks.kills import prepare_process
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import say
from benchmarks.stage_arguments import ARGUMENTS, arguments_of
from elcrec import cli
from elcrec.adapters.model_registry import make_database
from elcrec.config import to_dict
from elcrec.errors import UserError

_ENOUGH = "512m"
_PAGE = 4096
_HALF = ".partial"


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a stage on a small disk.

    Attributes:
        kib: the disk's size.
        refused: whether it ended with a one-line error; else there was enough space.
        faults: errors, and differences afterwards.
        said: the error.
    """

    stage: str
    kib: int
    refused: bool
    faults: list[str]
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every stage at every size; return the exit status, 1 if there was a fault."""
    failed: list[Tried] = []

    def work(options: argparse.Namespace, command: Sequence[str]) -> None:
        described, _ = describe(bare_job(), command)
        with tempfile.TemporaryDirectory() as folder:
            tried = list(run(Path(folder), options.sizes, options.stages))
        section: Section = {"facts": described, "tried": msgspec.to_builtins(tried)}
        record(options.out, "full_disk", section)
        failed.extend(each for each in tried if each.faults)

    return launch("benchmarks.full_disk", _parser(), work, arguments) or int(bool(failed))


def run(folder: Path, sizes: int, stages: Sequence[str]) -> Iterator[Tried]:
    """Yield the result of each stage at a number of sizes, up to the size of its output.

    Raises:
        UserError: mounting a file system is not permitted on this machine.
    """
    prepare_process()
    work, disk = folder / "work", folder / "disk"
    work.mkdir()
    disk.mkdir()
    (work / "params.yaml").write_text(yaml.safe_dump(to_dict(CONFIG)), encoding="utf-8")
    Child(lambda: make_database(work / "store" / "mlflow"), folder / "log").end()
    for stage in ARGUMENTS:
        with mounted(disk, _ENOUGH):
            _prepare(stage, work, disk)
            if fault := _attempt(stage, work, disk).fault:
                raise RuntimeError(f"{stage} failed where there was room: {fault}")
            expected, used = outcome_of(disk), shutil.disk_usage(disk).used
            shutil.copytree(disk, work, dirs_exist_ok=True)
        if stage in stages:
            for number in range(1, sizes + 1):
                tried = _try(stage, work, disk, number * used // sizes, expected)
                say(f"{stage}, {tried.kib:,} KiB: {tried.said or 'room enough'} {'; '.join(tried.faults)}")
                yield tried


def _try(stage: str, work: Path, disk: Path, size: int, expected: Outcome) -> Tried:
    size = max(size, 4 * _PAGE) // _PAGE * _PAGE
    with mounted(disk, str(size)):
        try:
            _prepare(stage, work, disk)
        except OSError:  # not even the existing store fits
            shutil.rmtree(disk / "store", ignore_errors=True)
        end = _attempt(stage, work, disk)
        faults = [] if not end.fault or end.fault.startswith("elcrec: error: ") else [f"not a line: {end.fault}"]
        faults += [f"half-written: {path.name}" for path in disk.rglob("*") if end.fault and path.name.endswith(_HALF)]
        subprocess.run(["mount", "-o", f"remount,size={_ENOUGH}", str(disk)], check=True)
        again = _attempt(stage, work, disk)
        faults += [f"with room: {again.fault}"] if again.fault else differences(expected, outcome_of(disk))
    return Tried(stage=stage, kib=size // 1024, refused=bool(end.fault), faults=faults, said=end.fault)


@contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:
    """Mount a file system in memory.

    Raises:
        UserError: that is not permitted here.
    """
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"no file system can be mounted here ({error.strerror})", where=place) from error
    if done.returncode:
        raise UserError(f"no file system can be mounted here ({done.stderr.strip()})", where=place, fix="run as root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _prepare(stage: str, work: Path, disk: Path) -> None:
    if stage == "push":  # creating the tables of a registry takes longer than everything else
        shutil.copytree(work / "store" / "mlflow", disk / "store" / "mlflow")


def _attempt(stage: str, work: Path, disk: Path) -> End:
    arguments = arguments_of(stage, work, disk)

    def call() -> int:
        without_pages()
        return cli.main([stage, *arguments, "--params", str(work / "params.yaml")])

    log = work.with_name("log")
    log.unlink(missing_ok=True)
    return Child(call, log).end()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_disk", description=__doc__)
    parser.add_argument("--sizes", type=positive, default=10, metavar="N", help="of the disk (default 10)")
    parser.add_argument("--stages", nargs="+", choices=tuple(ARGUMENTS), default=tuple(ARGUMENTS), help="(default all)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
