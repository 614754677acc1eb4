"""Checkpoints of a training run: one safetensors file, written atomically, so that a killed run can resume.

It is written between epochs. The random draws of an epoch depend on (seed, epoch), so a resumed run equals an
uninterrupted one: on a CPU bit for bit, on a GPU except for the order of its sums.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from elcrec.artifacts import atomic_file

FILE = "checkpoint.safetensors"


@dataclass(kw_only=True)
class Progress:
    """The progress of training: epochs done, the epoch of the best validation (0 before the first) and its NDCG@20."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch, as in history.csv."""
    room: list[int] = field(default_factory=list)
    """State that the steps need to continue their draws unchanged (`Steps.room`)."""


def save_checkpoint(
    folder: Path,
    fingerprint: str,
    progress: Progress,
    modules: Mapping[str, nn.Module],
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state after an epoch; `fingerprint` identifies the configuration and data."""
    parts = {"best": best, **{name: module.state_dict() for name, module in modules.items()}}
    parts |= {f"optimizer/{index}": state for index, state in optimizer.state_dict()["state"].items()}
    tensors = {f"{part}/{name}": tensor.contiguous() for part, held in parts.items() for name, tensor in held.items()}
    metadata = {"fingerprint": fingerprint, "progress": json.dumps(asdict(progress))}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / FILE) as temporary:
        save_file(tensors, temporary, metadata)


def restore_checkpoint(
    folder: Path, fingerprint: str, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Load the state of the same run into `modules` and `optimizer`; return its progress and its best weights.

    Returns `None` if there is no checkpoint, or only that of another run.
    """
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            metadata = file.metadata()
            if metadata["fingerprint"] != fingerprint:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is not a mapping
    except (OSError, SafetensorError):
        return None
    for name, module in modules.items():
        module.load_state_dict(_under(f"{name}/", tensors))
    # PyTorch numbers the parameters; a parameter that never had a gradient has no state.
    parameters = range(sum(len(group["params"]) for group in optimizer.param_groups))
    state = {index: _under(f"optimizer/{index}/", tensors) for index in parameters}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return Progress(**json.loads(metadata["progress"])), _under("best/", tensors)


def discard_checkpoint(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
