"""`python -m benchmarks.components`: cost of the pipeline's components compared with commands, and of compilation."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, elcrec, say

_LINE = re.compile(r"(?P<state>RUNNING|SUCCEEDED) +\d+ s  (?P<task>[\w-]+)")
_DONE = re.compile(r"== (?P<stage>.+): done in (?P<seconds>[\d.]+) s")
_BASELINE = ("train", "--objective", "sasrec")
_COMMANDS = {
    "fetch": ("fetch",),
    "validate": ("validate",),
    "sequences": ("sequences",),
    "train": ("train",),
    "baseline": (*_BASELINE, "--out", "artifacts/baseline", "--checkpoint", "artifacts/checkpoints/baseline"),
    "evaluate": ("evaluate",),
    "push": ("push",),
}
"""The command that corresponds to each component."""
_CALLED = {"train the baseline": "baseline"}
"""The name of a stage in `elcrec run`, if it differs from that of the component."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training pipeline and its stages alternately on the sample log; return the exit status."""
    return launch("benchmarks.components", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs: dict[str, list[Result]] = {}
    compiled: list[Result] = []
    for turn in range(options.pairs):
        say(f"round {turn + 1} of {options.pairs} …")
        with tempfile.TemporaryDirectory() as folder:
            compiled.append({"seconds": _compile(Path(folder))})
            components = _components(Path(folder), options)
            commands, calls = _commands(Path(folder) / "commands", options), _calls(Path(folder) / "calls", options)
            for name in _COMMANDS:
                result = {"component": components[name], "command": commands[name], "call": calls[name]}
                runs.setdefault(name, []).append(result)
    section: Section = {"facts": described, "runs": runs, "compile": compiled}
    record(options.out, "components", section)
    say(f"wrote {options.out}")


def _compile(folder: Path) -> float:
    started = time.perf_counter()
    _pipeline("compile", "--output", str(folder / "training.yaml"))
    return time.perf_counter() - started


def _components(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run the pipeline through kfp.local's SubprocessRunner; return each task's seconds."""
    places = ["--root", str(folder / "runs"), "--store", str(folder / "store")]
    started, taken = dict[str, float](), dict[str, float]()
    for moment, line in _pipeline("run", *places, "--param", f"epochs={options.epochs}"):
        # The times of arrival of the lines are more precise than the whole seconds in them.
        found = _LINE.match(line)
        if found and found["state"] == "RUNNING":
            started[found["task"]] = moment
        elif found:
            taken[found["task"]] = moment - started[found["task"]]
    return taken


def _calls(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run all stages in one process, `elcrec run`; return the seconds of each."""
    arguments = ("run", "--workdir", str(folder), f"--set=train.epochs={options.epochs}")
    command = [sys.executable, "-m", "elcrec", *arguments, "--set=push.gate.floors.ndcg@20=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return {_CALLED.get(one["stage"], one["stage"]): float(one["seconds"]) for one in _DONE.finditer(done.stderr)}


def _commands(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run the stages as commands, one process each; return the seconds of each."""
    (folder / "artifacts").mkdir(parents=True)
    taken = {}
    for name, command in _COMMANDS.items():
        settings = (f"--params={ROOT / 'params.yaml'}", f"--set=train.epochs={options.epochs}")
        started = time.perf_counter()
        elcrec(*command, *settings, cwd=folder)
        taken[name] = time.perf_counter() - started
    return taken


def _pipeline(*arguments: str) -> list[tuple[float, str]]:
    """Run an `elcrec-pipeline` command; return its lines, each with its time of arrival."""
    command = [sys.executable, "-c", "import sys; from pipelines.cli import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = list(_timed(process))
    if process.returncode:
        raise RuntimeError("".join(line for _, line in lines[-30:]))
    return lines


def _timed(process: "subprocess.Popen[str]") -> Iterator[tuple[float, str]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield time.perf_counter(), line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.components", description=__doc__)
    parser.add_argument("--pairs", type=positive, default=3, help="rounds (default 3)")
    parser.add_argument("--epochs", type=positive, default=2, help="epochs of each training (default 2)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
