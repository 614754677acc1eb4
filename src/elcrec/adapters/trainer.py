"""Training in several processes under torchrun: the stage `train` with the same inputs, outputs and result.

On one node, torchrun starts the processes here. Several nodes are a TrainJob, in which each runs `torchrun … -m elcrec
train …` in our image. The runtime `torch-distributed` sets `PET_*` variables for torchrun: the number of nodes, the
rank of this one, the address of the first one, and the number of processes. Inputs and outputs are on a volume that
every node and this process mount at the same path.
"""

import hashlib
import logging
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from elcrec.adapters.pod_log import TAIL_LINES, sigterm_as_exit
from elcrec.adapters.train_job import own_error, run_job
from elcrec.adapters.train_nodes import Nodes
from elcrec.artifacts import atomic_dir, read_json
from elcrec.config import TrainConfig, to_dict
from elcrec.errors import LostWorkError, UserError

logger = logging.getLogger(__name__)

_START = "warm-start"
"""Folder of the bundle from which training starts."""
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
"""torchrun of this Python environment, which may not be on the PATH."""


def train_in_processes(
    config: TrainConfig,
    sequences: Path,
    out: Path,
    *,
    checkpoint: Path,
    processes: int,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Do what `elcrec.stages.train.train` does, in several processes on this machine, one per accelerator.

    Args:
        config: Model and optimisation.
        sequences: Output of the sequences stage.
        out: The model folder to write.
        checkpoint: Folder for the state of an unfinished run.
        processes: Number of processes.
        warm_start: Bundle of a pushed model whose weights training starts from.

    Returns:
        Epochs and validation metrics.

    Raises:
        UserError: torchrun fails; the tail of its log is in `details`.
    """
    with TemporaryDirectory() as scratch:
        params = Path(scratch, "params.yaml")
        _write_params(config, params)
        paths = {"params": params, "sequences": sequences, "out": out, "checkpoint": checkpoint}
        paths |= {_START: warm_start} if warm_start else {}
        _run([*_TORCHRUN, "--nproc-per-node", str(processes), *_training(paths)])
    return _metrics(out)


def _run(command: Sequence[str]) -> None:
    """Run a command and copy its log to ours, line by line; stop it when this process is stopped."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        sigterm_as_exit(),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            for line in process.stdout or ():
                tail.append(line.rstrip("\n"))
                logger.info("%s", tail[-1])
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        own = own_error(tail)
        kind, what = (UserError, own) if own else (LostWorkError, "training failed")
        raise kind(f"{what} (exit status {process.returncode})", where="torchrun", details="\n".join(tail))


def train_on_nodes(
    config: TrainConfig,
    sequences: Path,
    out: Path,
    *,
    checkpoint: Path,
    nodes: Nodes,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Do what `elcrec.stages.train.train` does, on several nodes, with the same result.

    A job left behind by an earlier attempt is removed first; the new one resumes from its checkpoint.

    Args:
        config: Model and optimisation.
        sequences: Output of the sequences stage.
        out: The model folder to write.
        checkpoint: Folder for the state of an unfinished run, on the workspace volume and used only by this run.
        nodes: Place and resources of the nodes.
        warm_start: Bundle of a pushed model whose weights training starts from.

    Returns:
        Epochs and validation metrics.

    Raises:
        UserError: the job cannot be created, fails or takes too long; the tail of its log is in `details`.
    """
    if not checkpoint.absolute().is_relative_to(nodes.workspace):
        fix = f"choose a folder below {nodes.workspace}"
        raise UserError("the checkpoint is not on the volume that the nodes share", where=checkpoint, fix=fix)
    folder = checkpoint.absolute() / "nodes"
    _hand_over(config, sequences, warm_start, folder)
    name = f"elcrec-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    run_job(name, command(nodes, folder, checkpoint.absolute()), nodes)
    metrics = _collect(folder / "model", out)
    shutil.rmtree(folder)
    return metrics


def command(nodes: Nodes, folder: Path, checkpoint: Path) -> list[str]:
    """Return a node's command; torchrun takes the rest from the runtime's `PET_*` variables."""
    processes = [] if nodes.processes_per_node is None else ["--nproc-per-node", str(nodes.processes_per_node)]
    paths = {
        "params": folder / "params.yaml",
        "sequences": folder / "sequences",
        "out": folder / "model",
        "checkpoint": checkpoint,
    }
    if (folder / _START).is_dir():
        paths["warm-start"] = folder / _START
    return ["torchrun", *processes, *_training(paths)]


def _training(paths: Mapping[str, Path]) -> list[str]:
    """Return the command that torchrun starts in every process."""
    return ["-m", "elcrec", "train", *(word for name, path in paths.items() for word in (f"--{name}", str(path)))]


def _hand_over(config: TrainConfig, sequences: Path, warm_start: Path | None, folder: Path) -> None:
    """Copy the nodes' inputs to the volume, and remove a model of an earlier attempt."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    for name, source in (("sequences", sequences), (_START, warm_start)):
        if source is not None:
            with atomic_dir(folder / name) as scratch:
                shutil.copytree(source, scratch, dirs_exist_ok=True)
    _write_params(config, folder / "params.yaml")


def _write_params(config: TrainConfig, path: Path) -> None:
    # The sequences exist already, but the configuration must be consistent: histories at least as long as the window.
    document = {"sequences": {"history": config.encoder.window}, "train": to_dict(config)}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _collect(model: Path, out: Path) -> dict[str, Any]:
    """Copy the nodes' model from the volume; return its metrics, as the stage does."""
    if not (model / "config.json").is_file():
        fix = "check that every node mounts the same claim at the same path; across machines it must be ReadWriteMany"
        raise UserError("the nodes have finished, but left no model here", where=model, fix=fix)
    with atomic_dir(out) as scratch:
        shutil.copytree(model, scratch, dirs_exist_ok=True)
    return _metrics(out)


def _metrics(out: Path) -> dict[str, Any]:
    """Return the stage's result, read from the model that it wrote."""
    facts = read_json(out / "config.json")
    valid = {f"valid_{name}": value for name, value in facts["valid"].items()}
    return {"epochs": facts["epochs"], "best_epoch": facts["best_epoch"]} | valid
