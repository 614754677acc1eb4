"""Training on several nodes: the stage `train` as a TrainJob, with the same inputs, outputs and result.

The nodes run `torchrun … -m elcrec train …` on our image. The runtime `torch-distributed` tells torchrun by `PET_*`
variables how many nodes there are, which one this is, where the first one listens, and how many processes to start.
What goes in and comes out lies on a volume that every node and this process mount at the same place.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from elcrec.adapters.train_job import Nodes, run_job
from elcrec.artifacts import atomic_dir, read_json
from elcrec.config import TrainConfig, to_dict
from elcrec.errors import UserError

_START = "warm-start"
"""Folder of the bundle that training starts from."""


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
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return ["torchrun", *processes, "-m", "elcrec", "train", *options]


def _hand_over(config: TrainConfig, sequences: Path, warm_start: Path | None, folder: Path) -> None:
    """Put what the nodes read on the volume; a model of an earlier attempt goes."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    for name, source in (("sequences", sequences), (_START, warm_start)):
        if source is not None:
            with atomic_dir(folder / name) as scratch:
                shutil.copytree(source, scratch, dirs_exist_ok=True)
    document = yaml.safe_dump({"train": to_dict(config)}, sort_keys=False)
    (folder / "params.yaml").write_text(document, encoding="utf-8")


def _collect(model: Path, out: Path) -> dict[str, Any]:
    """Copy the model that the nodes left on the volume; return its metrics, as the stage does."""
    if not (model / "config.json").is_file():
        fix = "does every node mount the same claim at the same place? across machines it must be ReadWriteMany"
        raise UserError("the nodes have finished, but left no model here", where=model, fix=fix)
    with atomic_dir(out) as scratch:
        shutil.copytree(model, scratch, dirs_exist_ok=True)
    facts = read_json(out / "config.json")
    valid = {f"valid_{name}": value for name, value in facts["valid"].items()}
    return {"epochs": facts["epochs"], "best_epoch": facts["best_epoch"]} | valid
