"""Models on disk: safetensors for the weights, JSON for everything else. Loading never executes code."""

from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from elcrec.artifacts import SCHEMA_VERSION, read_json, write_json
from elcrec.config import TrainConfig, to_dict
from elcrec.errors import UserError
from elcrec.model.elcrec import SequenceModel

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(model: SequenceModel, folder: Path, **facts: Any) -> None:
    """Write the weights and config.json; `facts` (where it came from, how it trained) go into config.json."""
    save_file(model.state_dict(), folder / WEIGHTS)
    own = {"schema_version": SCHEMA_VERSION, "num_items": model.num_items, "train": to_dict(model.config)}
    write_json(folder / CONFIG, own | facts)


def load_model(folder: Path, device: str = "cpu") -> SequenceModel:
    """Read a model folder.

    Raises:
        UserError: a file is missing, damaged, of another version, or the weights do not fit the configuration.
    """
    document = read_json(folder / CONFIG)
    if document.get("schema_version") != SCHEMA_VERSION:
        found = document.get("schema_version")
        raise UserError(f"schema version {found} is not {SCHEMA_VERSION}", where=folder, fix="train it again")
    try:
        config = msgspec.convert(document["train"], TrainConfig)
        model = SequenceModel(config, document["num_items"])
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, RuntimeError, SafetensorError, msgspec.ValidationError) as error:
        raise UserError(f"not a usable model ({error})", where=folder, fix="train it again") from error
    return model.to(device).eval()
