"""Run as a program: `elcrec run` in unusual environments, killed work, and stages on full disks, each in a child.

The slow imports are paid once. Arguments: a folder to work in. Prints a JSON document of what came of each.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import yaml

from benchmarks import full_disk
from benchmarks.kill_outcome import Outcome, differences
from benchmarks.kill_scenarios import Events, Pipeline, Serving, without_pages
from benchmarks.killing import Child, Kill
from benchmarks.kills import kill_and_repeat, make_store, prepare_process, run_undisturbed
from elcrec import cli
from elcrec.config import to_dict
from elcrec.errors import UserError
from elcrec.process import set_up_process

FUTURE = 4_000_000_000
MIB = 1 << 20


def few_files(_: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def little_memory(_: Path) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 48 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def small_files(_: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def files_of_the_future(work: Path) -> None:
    for path in work.rglob("*"):
        os.utime(path, (FUTURE, FUTURE))


def as_it_is(_: Path) -> None:
    pass


def through_links(work: Path) -> None:
    """Put a symbolic link in the place of the work folder, and one in that of the store."""
    for path in (work / "store", work):
        elsewhere = work.parent.parent / f"elsewhere-{path.name}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)


def attempt(pipeline: Pipeline, folder: Path, condition: Callable[[Path], None]) -> str:
    """Run the command under a condition; return the line that it ended with, nothing for success."""
    params = folder.with_name("params.yaml")
    params.write_text(yaml.safe_dump(to_dict(pipeline.config)))

    def call() -> int:
        condition(folder / "work")
        without_pages()
        return cli.main(["run", "--workdir", str(folder / "work"), "--params", str(params)])

    log = folder / "log"
    log.unlink(missing_ok=True)
    end = Child(call, log).end()
    return "killed" if end.killed else end.fault


def odd(pipeline: Pipeline, folder: Path, expected: Outcome) -> dict[str, list[str]]:
    """Run in each surrounding, then in peace; return what the first said and what is wrong in the end."""
    found = {}
    for condition in (few_files, little_memory, small_files, files_of_the_future, through_links):
        pipeline.prepare(folder)
        if condition is files_of_the_future:
            attempt(pipeline, folder, as_it_is)
        if condition is through_links:
            through_links(folder / "work")
        said = attempt(pipeline, folder, as_it_is if condition is through_links else condition)
        again = attempt(pipeline, folder, as_it_is) if said else ""
        found[condition.__name__] = [said, again, *differences(expected, pipeline.outcome(folder))]
        for path in (*folder.parent.glob("elsewhere-*"), folder):
            shutil.rmtree(path)
    return found


def main(folder: Path) -> None:
    set_up_process()
    prepare_process()
    pipeline, store = make_store(folder)
    point = folder / "point"
    peaceful = run_undisturbed(pipeline, point)
    found = {"odd": odd(pipeline, point, peaceful.outcome), "killed": {}, "disks": None}
    for scenario, events in ((pipeline, (700, 1900)), (Events(store=store), (300,)), (Serving(store=store), (700,))):
        expected = peaceful.outcome if scenario is pipeline else run_undisturbed(scenario, point).outcome
        for event in events:
            faults = kill_and_repeat(scenario, [Kill(event=event)], expected, point)
            found["killed"][f"{type(scenario).__name__} at event {event}"] = faults
    (folder / "disks").mkdir()
    try:
        found["disks"] = msgspec.to_builtins(list(full_disk.run(folder / "disks", 2, ("train", "push"))))
    except UserError as error:
        found["no disks"] = str(error)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
