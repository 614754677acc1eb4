"""The stages of the pipeline on one random log, each in its own process: their cost, and how much they spill."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch

from benchmarks.jobs import Job, Numbers
from benchmarks.machine import cpu_of, peak_mib_of
from benchmarks.runner import ROOT, run, say
from elcrec.artifacts import read_json
from elcrec.config import TrainConfig
from elcrec.custody import write_checksums
from elcrec.model.io import save_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle

EVENTS_A_USER, ITEMS = 10, 100_000
ASKED_USERS, STEPS = 20_000, 50
"""Number of evaluated users, and number of training steps."""
RECOMMENDED_USERS = 100_000
"""Approximate number of users to recommend for, a part of all."""

_BLOCK = 1_000_000
_ZIPF_EXPONENT = 0.8
_FIRST_SECOND, _SECONDS = 1_600_000_000, 100_000_000
_PAUSE = 0.05
_LAST_LETTERS = 2000


@dataclass(frozen=True)
class Log:
    """A random log in a folder, its number of rows, and the memory for the engine."""

    folder: Path
    rows: int
    memory_mb: int

    @property
    def path(self) -> Path:
        """The log as CSV."""
        return self.folder / "log.csv"

    @property
    def users(self) -> int:
        """Its approximate number of users."""
        return max(1, self.rows // EVENTS_A_USER)

    def options(self, *more: str) -> list[str]:
        """Return the options that all stages take."""
        settings = [
            "fetch.dataset=file",
            "fetch.file.format=csv",
            f"fetch.file.path={self.path}",
            "validate.epoch_unit=s",
            "engine.threads=1",
            f"engine.memory_mb={self.memory_mb}",
            f"evaluate.users={ASKED_USERS}",
            *more,
        ]
        return ["--params", "params.yaml", *(word for setting in settings for word in ("--set", setting))]


def prepare(log: Log) -> None:
    """Write and fetch the log, unless that is done."""
    log.folder.mkdir(parents=True, exist_ok=True)
    (log.folder / "params.yaml").write_text("{}\n", encoding="utf-8")
    if not (log.folder / "raw").is_dir():
        say(f"making a log of {log.rows:,} rows …")
        _write_log(log.path, log.rows, log.users)
        _elcrec(log, "fetch", *log.options(), "--out", "raw")


def measure(log: Log, stage: str) -> Numbers:
    """Run one of `STAGES`, after those before it; return its CPU and wall seconds, its peak memory and its spill.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    say(f"{log.rows:,} rows: {stage} …")
    return STAGES[stage](log)


def _write_log(path: Path, rows: int, users: int) -> None:
    """Write a log in order of time: ten events per user, items by Zipf's law with exponent 0.8."""
    generator = np.random.default_rng(1)
    popularity = np.cumsum(np.arange(1, ITEMS + 1) ** -_ZIPF_EXPONENT)
    schema = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()})
    with pa.csv.CSVWriter(path, schema) as writer:
        for start in range(0, rows, _BLOCK):
            size = min(_BLOCK, rows - start)
            drawn = generator.integers(0, users, size)
            items = np.searchsorted(popularity, generator.random(size) * popularity[-1])
            times = _FIRST_SECOND + (np.arange(start, start + size) * (_SECONDS / rows)).astype(np.int64)
            columns = [pa.array(drawn).cast(pa.string()), pa.array(items).cast(pa.string()), pa.array(times)]
            writer.write_table(pa.table(columns, schema=schema))


def _sort(log: Log) -> Numbers:
    """Sort the log with DuckDB alone and write it as Parquet, with the same memory as the stages' engine."""
    found = _run(log, [sys.executable, "-m", "benchmarks.raw_sort", str(log.path), str(log.memory_mb)])
    (log.folder / "sorted.parquet").unlink()
    return found


def _validate(log: Log) -> Numbers:
    return _elcrec(log, "validate", *log.options(), "--raw", "raw", "--out", "validated")


def _sequences(log: Log) -> Numbers:
    return _elcrec(log, "sequences", *log.options(), "--interactions", "validated", "--out", "sequences")


def _on_spark(log: Log, stage: str, given: str) -> Numbers:
    spark = log.options("engine.kind=spark")
    return _elcrec(log, stage, *spark, f"--{given}", "raw" if given == "raw" else "validated", "--out", "spark")


def _train(log: Log) -> Numbers:
    job = Job(
        kind="train",
        sequences=str(log.folder / "sequences"),
        params=str(ROOT / "params.yaml"),
        overrides=("train.device=cpu", "train.item_updates=lazy", "train.next_item.loss=sampled_softmax"),
        steps=STEPS,
    )
    found = run(job)
    numbers = {"cpu": found["steps_cpu"], "wall": found["steps_wall"], "peak_mib": found["total_mib"]}
    return numbers | {"steps": found["steps"], "whole": found["whole"], "before_cpu": found["before_cpu"]}


def _evaluate(log: Log) -> Numbers:
    """Rank with untrained weights, which costs the same."""
    if not (log.folder / "model").is_dir():
        _write_model(log)
    inputs = ["--model", "model", "--sequences", "sequences", "--truth", "raw", "--baseline", "none"]
    return _elcrec(log, "evaluate", *log.options(), *inputs, "--out", "evaluation")


def _write_model(log: Log) -> None:
    sequences, model = log.folder / "sequences", log.folder / "model"
    split, config = read_json(sequences / "split.json"), TrainConfig()
    torch.manual_seed(config.seed)
    model.mkdir()
    facts = {"git_revision": None, "epochs": 0, "best_epoch": 0, "seconds": 0.0}
    save_model(SequenceModel(config.model, split["num_items"]), model, config, sequences_md5=split["md5"], **facts)
    write_checksums(model)


def _recommend_all(log: Log) -> Numbers:
    folders = {name: log.folder / name for name in ("model", "sequences", "evaluation")}
    source = BundleSource(**folders)
    manifest = describe_bundle(source, name="elcrec", feature_service="elcrec_v1", feature_schema="none")
    write_bundle(source, manifest, log.folder / "bundle")
    parts = max(1, log.users // RECOMMENDED_USERS)
    inputs = ["--bundle", "bundle", "--histories", "sequences/histories.parquet", "--part", f"1/{parts}"]
    options = ["--params", "params.yaml", *inputs, "--out", "answers.parquet"]
    return _elcrec(log, "recommend-all", *options) | {"parts": parts}


def _push(log: Log) -> Numbers:
    inputs = ["--model", "model", "--sequences", "sequences", "--evaluation", "evaluation", "--store", "store"]
    return _elcrec(log, "push", *log.options(), *inputs, "--out", "push")


STAGES = {
    "raw sort and write": _sort,
    "validate": _validate,
    "sequences": _sequences,
    "train": _train,
    "evaluate": _evaluate,
    "recommend-all": _recommend_all,
    "validate on Spark": lambda log: _on_spark(log, "validate", "raw"),
    "sequences on Spark": lambda log: _on_spark(log, "sequences", "interactions"),
    "push": _push,
}
"""The stages in the order in which they run; each needs the output of the earlier ones."""


def _elcrec(log: Log, *arguments: str) -> Numbers:
    return _run(log, [sys.executable, "-m", "elcrec", *arguments])


def _run(log: Log, command: Sequence[str]) -> Numbers:
    started, peak, spilled, cpu = time.perf_counter(), 0.0, 0.0, 0.0
    variables = {"ELCREC_FEATURES": str(ROOT / "features"), "OMP_NUM_THREADS": "1", "PYTHONPATH": _python_path()}
    with (log.folder / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=log.folder, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=said
        )
        while True:
            # A member may end while it is measured.
            with contextlib.suppress(OSError):
                family = list(family_of(process.pid))
                peak = max(peak, sum(map(peak_mib_of, family)))
                cpu = max(cpu, sum(cpu_of(pid, with_children=True) for pid in family))
            spilled = max(spilled, _spilled_mib(log.folder))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(_PAUSE)
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read()[-_LAST_LETTERS:]}")
    wall = time.perf_counter() - started
    # Spark's Java process is killed, not waited for, so its time is not in that of the process.
    cpu = max(cpu, usage.ru_utime + usage.ru_stime)
    return {"cpu": cpu, "wall": wall, "peak_mib": peak, "spilled_mib": spilled}


def _python_path() -> str:
    """Return a PYTHONPATH for processes in other folders to find this checkout."""
    return os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def family_of(pid: int) -> Iterator[int]:
    """Yield a process and its descendants, because Spark works in a Java process."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from family_of(int(child))


def _spilled_mib(folder: Path) -> float:
    total = 0
    for file in folder.glob(".*.partial/temporary/*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total / 2**20
