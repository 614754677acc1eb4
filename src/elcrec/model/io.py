"""Models on disk: safetensors for the weights, JSON for everything else. Loading never executes code.

In config.json the architecture (`model`) is separate from the training configuration (`train`), so that saved models
stay readable when the training configuration changes. Version 1 had only the training configuration.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from elcrec.artifacts import read_json, write_json
from elcrec.config import ModelConfig, TrainConfig, to_dict
from elcrec.errors import UserError
from elcrec.model.sequence_model import SequenceModel

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VERSION = 2


def save_model(model: SequenceModel, folder: Path, train: TrainConfig, **facts: Any) -> None:
    """Write the weights and config.json, with `facts` such as the origin of the model and the progress of training."""
    save_file(model.state_dict(), folder / WEIGHTS)
    own = {"schema_version": VERSION, "num_items": model.num_items, "model": to_dict(model.config)}
    write_json(folder / CONFIG, own | {"train": to_dict(train)} | facts)


def read_architecture(folder: Path) -> ModelConfig:
    """Read the architecture of a model, without its weights.

    Raises:
        UserError: config.json is missing, damaged or of a later version.
    """
    document = read_json(folder / CONFIG)
    version = document.get("schema_version")
    if version not in (1, VERSION):
        fix = "read it with the release that wrote it, or train it again"
        raise UserError(f"schema version {version} is not one of 1 to {VERSION}", where=folder, fix=fix)
    try:
        return msgspec.convert(_architecture_1(document["train"]) if version == 1 else document["model"], ModelConfig)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise UserError(f"not a usable model ({error})", where=folder, fix="train it again") from error


def load_model(folder: Path, device: str = "cpu") -> SequenceModel:
    """Read a model folder.

    Raises:
        UserError: a file is missing, damaged, of a later version, or the weights do not fit the configuration.
    """
    architecture, document = read_architecture(folder), read_json(folder / CONFIG)
    try:
        model = SequenceModel(architecture, document["num_items"])
        tensors = load_file(folder / WEIGHTS)
        if document["schema_version"] == 1:
            tensors = {name.replace(".attention", ".mixer"): tensor for name, tensor in tensors.items()}
        model.load_state_dict(tensors)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"not a usable model ({error})", where=folder, fix="train it again") from error
    return model.to(device).eval()


def _architecture_1(train: Mapping[str, Any]) -> dict[str, Any]:
    """Read the architecture from the training configuration of version 1."""
    kind = {"elcrec": "learned", "iclrec": "clustered", "sasrec": None}[train["objective"]]
    return {"encoder": train["encoder"], "intents": kind, "num_intents": train["intents"]["num_intents"] if kind else 0}
