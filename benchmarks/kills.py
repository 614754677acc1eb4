"""`python -m benchmarks.kills`: SIGKILL the pipeline, events and a server, repeat the work, compare the outcome.

Kills happen at random times, at every n-th file or database event, and twice. The result of each point is kept in a
file, so an interrupted sweep resumes where it stopped.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.kill_outcome import Outcome, differences
from benchmarks.kill_scenarios import Pipeline, Scenario, scenarios
from benchmarks.killing import Child, End, Kill, import_late_modules
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, say
from elcrec.adapters.model_registry import make_database

_SHARES = {"run": 0.6, "run, with pages and a new registry": 0.04, "events": 0.12, "serving": 0.24}
"""The part of the points for each scenario."""
_APART = {"run, with pages and a new registry": 20}
"""Factor on the distance of events for a scenario that takes longer."""
_LATEST = 0.98
"""Random kills happen within this part of an undisturbed pass; a kill that comes too late is drawn again."""
_DRAWS = 20


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the sweep.

    Attributes:
        scenario: name of the scenario.
        kind: `random`, `twice` or `event`.
        number: number of the point of this kind, or of the event.
    """

    scenario: str
    kind: str
    number: int

    @property
    def name(self) -> str:
        """Return its name."""
        return f"{self.scenario}/{self.kind}/{self.number}"

    def kills(self, draws: random.Random, seconds: float) -> list[Kill]:
        """Return when to kill work of the given duration."""
        if self.kind == "event":
            return [Kill(event=self.number)]
        return [Kill(after=draws.uniform(0, _LATEST) * seconds) for _ in range(2 if self.kind == "twice" else 1)]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a point.

    Attributes:
        point: the point.
        killed: whether every kill happened; an event may not occur in another pass.
        faults: failures, and differences from undisturbed work.
        seconds: duration.
    """

    point: Point
    killed: bool
    faults: list[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """An undisturbed pass: its outcome, CPU seconds, and number of file and database events."""

    outcome: Outcome
    seconds: float
    events: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; return the exit status, 1 if an outcome differs."""
    failed: list[str] = []

    def work(options: argparse.Namespace, command: Sequence[str]) -> None:
        failed.extend(_measure(options, command))

    return launch("benchmarks.kills", _parser(), work, arguments) or int(bool(failed))


def _measure(options: argparse.Namespace, command: Sequence[str]) -> list[str]:
    described, _ = describe(bare_job(), command)
    tried = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for each in sweep(Path(folder), options):
            tried.append(each)
            section: Section = {"facts": described, "tried": msgspec.to_builtins(tried)}
            record(options.out, "kills", section)
    say(f"wrote {options.out}")
    return [each.point.name for each in tried if each.faults]


def sweep(folder: Path, options: argparse.Namespace) -> Iterator[Tried]:
    """Yield the result of every point, from the state file if it is there."""
    known = _known(options.state)
    prepare_process()
    every = scenarios(*make_store(folder))
    peaceful = {name: run_undisturbed(every[name], folder / "point") for name in options.scenarios}
    for name, one in peaceful.items():
        say(f"{name}: {one.seconds:.1f} processor s, {one.events} events")
    for point in _plan(options, peaceful):
        if point not in known:
            draws = random.Random(f"{options.seed}/{point.name}")
            known[point] = _try(point, every[point.scenario], peaceful[point.scenario], folder / "point", draws)
            _keep(options.state, known[point])
            said = "; ".join(known[point].faults) or ("equal" if known[point].killed else "not reached")
            say(f"{point.name}: {known[point].seconds:.1f} s, {said}")
        yield known[point]


def prepare_process() -> None:
    """Set up this process as the parent of the children to kill."""
    os.environ |= {"ELCREC_FEATURES": str(ROOT / "features"), "ELCREC_GIT_REVISION": "unknown"}
    torch.set_num_threads(1)
    import_late_modules()


def make_store(folder: Path) -> tuple[Pipeline, Path]:
    """Create the initial state of the scenarios: an empty registry, and a store with a champion.

    Raises:
        RuntimeError: it failed.
    """
    registry, base = folder / "registry", folder / "base"
    pipeline = Pipeline(registry=registry)
    _require(Child(lambda: make_database(registry), folder / "log").end())
    pipeline.prepare(base)
    _require(pipeline.attempt(base))
    return pipeline, base / "work" / "store"


def run_undisturbed(scenario: Scenario, folder: Path) -> Undisturbed:
    """Do the work without kills.

    Raises:
        RuntimeError: it failed.
    """
    scenario.prepare(folder)
    end = _require(scenario.attempt(folder))
    outcome = scenario.outcome(folder)
    shutil.rmtree(folder)
    return Undisturbed(outcome=outcome, seconds=end.seconds, events=end.events)


def kill_and_repeat(scenario: Scenario, kills: Sequence[Kill], expected: Outcome, folder: Path) -> list[str] | None:
    """Kill the work, repeat it without kills, and return the faults; `None` if a kill came too late."""
    scenario.prepare(folder)
    try:
        for kill in kills:
            end = scenario.attempt(folder, kill)
            if end.fault:
                return [f"failed when it was to be killed: {end.fault}"]
            if not end.killed:
                return None
        end = scenario.attempt(folder)
        return [f"failed after a kill: {end.fault}"] if end.fault else differences(expected, scenario.outcome(folder))
    finally:
        shutil.rmtree(folder)


def _require(end: End) -> End:
    if end.fault:
        raise RuntimeError(f"undisturbed, it failed: {end.fault}")
    return end


def _plan(options: argparse.Namespace, peaceful: Mapping[str, Undisturbed]) -> list[Point]:
    """Return the points, random times first, in an order in which any first part covers all scenarios."""
    points, events = [], []
    for kind, count in (("random", options.random), ("twice", options.double)):
        for name, share in _shared(count, options.scenarios).items():
            points += [Point(scenario=name, kind=kind, number=number) for number in range(share)]
    for name, one in peaceful.items():
        apart = options.every * _APART.get(name, 1)
        events += [Point(scenario=name, kind="event", number=number) for number in range(1, one.events + 1, apart)]
    for part in (points, events):
        random.Random(options.seed).shuffle(part)
    return points + events


def _shared(count: int, names: Sequence[str]) -> dict[str, int]:
    """Return the number of points of each scenario; the first one gets the remainder of rounding."""
    total = sum(_SHARES[name] for name in names)
    shares = {name: int(count * _SHARES[name] / total) for name in names}
    shares[names[0]] += count - sum(shares.values())
    return shares


def _try(point: Point, scenario: Scenario, peaceful: Undisturbed, folder: Path, draws: random.Random) -> Tried:
    started = time.monotonic()
    faults = None
    for _ in range(1 if point.kind == "event" else _DRAWS):
        faults = kill_and_repeat(scenario, point.kills(draws, peaceful.seconds), peaceful.outcome, folder)
        if faults is not None:
            break
    seconds = time.monotonic() - started
    return Tried(point=point, killed=faults is not None, faults=faults or [], seconds=round(seconds, 1))


def _known(state: Path | None) -> dict[Point, Tried]:
    if state is None or not state.exists():
        return {}
    lines = state.read_bytes().splitlines()
    return {one.point: one for one in (msgspec.json.decode(line, type=Tried) for line in lines)}


def _keep(state: Path | None, tried: Tried) -> None:
    if state is not None:
        with state.open("ab") as file:
            file.write(msgspec.json.encode(tried) + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--random", type=int, default=200, metavar="N", help="kills at random times (default 200)")
    parser.add_argument("--double", type=int, default=50, metavar="N", help="points of two kills each (default 50)")
    parser.add_argument("--every", type=positive, default=10, metavar="N", help="kill at every N-th event (default 10)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(default 1)")
    names = tuple(_SHARES)
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names, help="(default all)")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="file of known results, from which the sweep resumes"
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="folder to work in (default: the system's temporary folder)"
    )
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
