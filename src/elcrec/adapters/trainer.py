"""Training in several processes: the stage `train` with the same inputs, outputs and result, under torchrun.

On one node torchrun starts them here. Several nodes are a TrainJob: they run `torchrun … -m elcrec train …` on our
image. The runtime `torch-distributed` tells torchrun by `PET_*` variables how many nodes there are, which one this is,
where the first one listens, and how many processes to start. What goes in and comes out lies on a volume that every
node and this process mount at the same place.
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
"""Folder of the bundle that training starts from."""
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
"""torchrun of this environment, which need not be on the PATH."""


def train_in_processes(
    config: TrainConfig,
    sequences: Path,
    out: Path,
    *,
    checkpoint: Path,
    processes: int,
    warm_start: Path | None = None,
) -> dict[str, Any]:
    """Do in several processes of this machine, one an accelerator, what `elcrec.stages.train.train` does in one.

    Args:
        config: Model and optimisation.
        sequences: Output of the sequences stage.
        out: The model folder to write.
        checkpoint: Folder for the state of an unfinished run.
        processes: How many torchrun starts.
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
    """Run a command and copy its log to ours, line by line; when this process is stopped, so is the command."""
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
    """Do on several nodes what `elcrec.stages.train.train` does here, with the same result.

    A job that an earlier attempt left behind is removed first; its checkpoint is where the new one goes on.

    Args:
        config: Model and optimisation.
        sequences: Output of the sequences stage.
        out: The model folder to write.
        checkpoint: Folder for the state of an unfinished run, on the workspace volume and this run's alone.
        nodes: Where the nodes run.
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
    """Return what a node runs: torchrun takes the rest from the runtime's `PET_*` variables."""
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
    """Return what torchrun starts in every process."""
    return ["-m", "elcrec", "train", *(word for name, path in paths.items() for word in (f"--{name}", str(path)))]


def _hand_over(config: TrainConfig, sequences: Path, warm_start: Path | None, folder: Path) -> None:
    """Put what the nodes read on the volume; a model of an earlier attempt goes."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    for name, source in (("sequences", sequences), (_START, warm_start)):
        if source is not None:
            with atomic_dir(folder / name) as scratch:
                shutil.copytree(source, scratch, dirs_exist_ok=True)
    _write_params(config, folder / "params.yaml")


def _write_params(config: TrainConfig, path: Path) -> None:
    # The sequences are made by now, but a configuration says that they keep what the model's window holds.
    document = {"sequences": {"history": config.encoder.window}, "train": to_dict(config)}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _collect(model: Path, out: Path) -> dict[str, Any]:
    """Copy the model that the nodes left on the volume; return its metrics, as the stage does."""
    if not (model / "config.json").is_file():
        fix = "does every node mount the same claim at the same place? across machines it must be ReadWriteMany"
        raise UserError("the nodes have finished, but left no model here", where=model, fix=fix)
    with atomic_dir(out) as scratch:
        shutil.copytree(model, scratch, dirs_exist_ok=True)
    return _metrics(out)


def _metrics(out: Path) -> dict[str, Any]:
    """Return what the stage returns, from the model that it wrote."""
    facts = read_json(out / "config.json")
    valid = {f"valid_{name}": value for name, value in facts["valid"].items()}
    return {"epochs": facts["epochs"], "best_epoch": facts["best_epoch"]} | valid
