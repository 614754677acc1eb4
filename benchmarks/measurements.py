"""The measurements of `python -m benchmarks`, by name, with the jobs that each compares."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import runner
from benchmarks.jobs import Job, Objective
from benchmarks.logs import synthesise
from benchmarks.runner import Runs, alternate, say
from elcrec.artifacts import read_json

TEXTBOOK_STEPS = 20
"""Number of steps measured for the textbook's epoch on a CPU, where a whole epoch takes minutes."""
SIZED_STEPS = 100
"""Number of steps measured for an epoch over a random log."""
SIZED_ITEMS = 20_000
EVENTS_AN_ITEM, LONG_HISTORY = 4, 20
"""Number of users of the random logs with large catalogues: enough that nearly all items occur."""
ITEM_UPDATES = ("dense", "lazy")
COMPILED = "ours, compiled"
OBJECTIVES: tuple[Objective, ...] = ("elcrec", "iclrec", "sasrec")

Section = dict[str, Any]
"""The result of a measurement: `runs` by job."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The common settings of all measurements of a run.

    Attributes:
        job: the base of every job: data, configuration, threads.
        gpu: whether the jobs run on a GPU.
        rounds: number of runs of each job.
        steps: largest number of steps of every job, `None` for each measurement's own choice.
        sizes: numbers of users of the random logs.
        catalogues: numbers of items of random logs, of which some may never occur.
    """

    job: Job
    gpu: bool
    rounds: int
    steps: int | None
    sizes: tuple[int, ...]
    catalogues: tuple[int, ...]

    def ours(self, **changes: Any) -> Job:
        """Return a job of our engine."""
        return msgspec.structs.replace(self.job, engine="ours", **{"steps": self.steps, **changes})

    def textbook(self, **changes: Any) -> Job:
        """Return a job of the textbook; on a CPU it runs a part of the epoch."""
        steps = self.steps if self.steps is not None or self.gpu else TEXTBOOK_STEPS
        return msgspec.structs.replace(self.job, engine="textbook", **{"steps": steps, **changes})


def train(setting: Setting) -> Section:
    """Training and its memory: ours as configured and with variants, and the textbook."""
    jobs = {"ours": setting.ours(kind="train", validate=True)}
    if setting.gpu:
        overrides = (*setting.job.overrides, "train.compile=true")
        jobs[COMPILED] = setting.ours(kind="train", validate=True, overrides=overrides)
    jobs["textbook"] = setting.textbook(kind="train", validate=True)
    return {"runs": alternate(jobs, setting.rounds)}


def rank(setting: Setting) -> Section:
    """Full ranking of all test users."""
    jobs = {"ours": setting.ours(kind="rank"), "textbook": setting.textbook(kind="rank", steps=setting.steps)}
    return {"runs": alternate(jobs, setting.rounds)}


def objectives(setting: Setting) -> Section:
    """An epoch of each objective, in both engines."""
    jobs = {f"{name}, ours": setting.ours(kind="train", objective=name) for name in OBJECTIVES}
    jobs |= {f"{name}, textbook": setting.textbook(kind="train", objective=name) for name in OBJECTIVES}
    return {"runs": alternate(jobs, setting.rounds)}


def users(setting: Setting) -> Section:
    """An epoch of learnable centres and of k-means centres against the number of users."""
    runs: Runs = {}
    for size in setting.sizes:
        with tempfile.TemporaryDirectory() as folder:
            sequences = str(synthesise(Path(folder), users=size, items=SIZED_ITEMS))
            steps = setting.steps or SIZED_STEPS
            jobs = {
                f"{name}, {size} users": setting.ours(kind="train", objective=name, sequences=sequences, steps=steps)
                for name in OBJECTIVES
                if name != "sasrec"
            }
            runs |= alternate(jobs, setting.rounds)
    return {"runs": runs}


def catalogue(setting: Setting) -> Section:
    """A step with sampled softmax by the number of items, with dense and with lazy updates."""
    runs: Runs = {}
    for size in setting.catalogues:
        with tempfile.TemporaryDirectory() as folder:
            users = size * EVENTS_AN_ITEM // LONG_HISTORY
            sequences = synthesise(Path(folder), users=users, items=size, mean_length=LONG_HISTORY)
            items = read_json(sequences / "split.json")["num_items"]
            jobs = {
                f"{updates}, {items} items": setting.ours(
                    kind="train",
                    objective="sasrec",
                    sequences=str(sequences),
                    steps=setting.steps or SIZED_STEPS,
                    overrides=(
                        *setting.job.overrides,
                        "train.next_item.loss=sampled_softmax",
                        f"train.item_updates={updates}",
                    ),
                )
                for updates in ITEM_UPDATES
            }
            runs |= alternate(jobs, setting.rounds)
    return {"runs": runs}


def profile(setting: Setting) -> Section:
    """The profile of our step, compared with the machine's matrix products."""
    say("profiling …")
    jobs = {"profile": setting.ours(kind="profile"), "rates": setting.ours(kind="rates")}
    return {"runs": {name: [runner.run(job)] for name, job in jobs.items()}}


MEASUREMENTS: Mapping[str, Callable[[Setting], Section]] = {
    "train": train,
    "rank": rank,
    "objectives": objectives,
    "users": users,
    "catalogue": catalogue,
    "profile": profile,
}
