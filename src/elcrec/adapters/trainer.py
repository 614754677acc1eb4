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

from elcrec.adapters.train_job import Platform, run_job
from elcrec.artifacts import atomic_dir, read_json
from elcrec.config import TrainConfig, to_dict
from elcrec.errors import UserError


def train_on_nodes(
    config: TrainConfig, sequences: Path, out: Path, *, checkpoint: Path, platform: Platform
) -> dict[str, Any]:
    """Do on several nodes what `elcrec.stages.train.train` does here, with the same result.

    A job that an earlier attempt left behind is removed first; its checkpoint is where the new one goes on.

    Args:
        config: Model and optimisation.
        sequences: Output of the sequences stage.
        out: The model folder to write.
        checkpoint: Folder for the state of an unfinished run, on the workspace volume and this run's alone.
        platform: Where the nodes run.

    Returns:
        Epochs and validation metrics.

    Raises:
        UserError: the job cannot be created, fails or takes too long; the tail of its log is in `details`.
    """
    if not checkpoint.absolute().is_relative_to(platform.workspace):
        fix = f"choose a folder below {platform.workspace}"
        raise UserError("the checkpoint is not on the volume that the nodes share", where=checkpoint, fix=fix)
    folder = checkpoint.absolute() / "nodes"
    _hand_over(config, sequences, folder)
    name = f"elcrec-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    run_job(name, command(platform, folder, checkpoint.absolute()), platform)
    metrics = _collect(folder / "model", out)
    shutil.rmtree(folder)
    return metrics


def command(platform: Platform, folder: Path, checkpoint: Path) -> list[str]:
    """Return what a node runs: torchrun takes the rest from the runtime's `PET_*` variables."""
    processes = [] if platform.processes_per_node is None else ["--nproc-per-node", str(platform.processes_per_node)]
    paths = {
        "params": folder / "params.yaml",
        "sequences": folder / "sequences",
        "out": folder / "model",
        "checkpoint": checkpoint,
    }
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return ["torchrun", *processes, "-m", "elcrec", "train", *options]


def _hand_over(config: TrainConfig, sequences: Path, folder: Path) -> None:
    """Put what the nodes read on the volume; a model of an earlier attempt goes."""
    shutil.rmtree(folder / "model", ignore_errors=True)
    with atomic_dir(folder / "sequences") as scratch:
        shutil.copytree(sequences, scratch, dirs_exist_ok=True)
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
