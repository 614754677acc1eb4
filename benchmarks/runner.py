"""Runs jobs alternately, each in a fresh process: A B, B A, … so that changes of the machine affect both equally."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.jobs import Job, Numbers, Result

ROOT = Path(__file__).parents[1]
_LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
_LAST_LINES = 20

Runs = dict[str, list[Result]]
"""Results by the name of the job, one per run."""


def alternate(jobs: Mapping[str, Job], rounds: int) -> Runs:
    """Run every job once per round, in reverse order in every other round.

    An interrupt after every job has run once ends the rounds and keeps the results, because a lent GPU may be
    withdrawn.
    """
    runs: Runs = {name: [] for name in jobs}
    turns = [(turn, name) for turn in range(rounds) for name in list(jobs)[:: 1 if turn % 2 == 0 else -1]]
    for turn, name in turns:
        started = time.perf_counter()
        say(f"round {turn + 1} of {rounds}: {name} …")
        try:
            runs[name].append(run(jobs[name]))
        except KeyboardInterrupt:
            if not all(runs.values()):
                raise
            say("interrupted: the rounds end here")
            break
        say(f"round {turn + 1} of {rounds}: {name}: {time.perf_counter() - started:.0f} s")
    return runs


def run(job: Job) -> Result:
    """Run one job in a separate process.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    threads = {f"{library}_NUM_THREADS": str(job.threads) for library in _LIBRARIES}
    command = [sys.executable, "-m", "benchmarks.task", msgspec.json.encode(job).decode()]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-_LAST_LINES:])
        raise RuntimeError(f"{job.kind} of {job.engine} failed:\n{said}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)


def elcrec(*arguments: str, environment: Mapping[str, str] = {}, cwd: Path = ROOT) -> str:
    """Run an `elcrec` command; return its output.

    Raises:
        RuntimeError: it failed; the message is its own.
    """
    variables = {"ELCREC_FEATURES": str(ROOT / "features"), **os.environ, **environment}
    command = [sys.executable, "-m", "elcrec", *arguments]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def medians(runs: list[Result]) -> Numbers:
    """Return the median of each number over the runs."""
    numbers = [name for name, value in runs[0].items() if isinstance(value, int | float)]
    return {name: median(one[name] for one in runs) for name in numbers}


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)
