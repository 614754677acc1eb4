"""The provenance of a model and of its ranks.

Facts in a model's config.json are put into words. Ranks identify their model: the sha256 of the weights is in the
metadata of the Parquet file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from elcrec.artifacts import sha256_of
from elcrec.model.io import WEIGHTS
from elcrec.registry import find_objective

_KEY = b"model_sha256"


def model_label(config: Mapping[str, Any]) -> str:
    """Return the model's name."""
    label = find_objective(config["train"]["objective"]).label
    return f"Imported {label}" if "imported" in config else label


def origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a model: its training, or the file from which it was imported."""
    facts = {"objective": config["train"]["objective"]}
    if "imported" in config:
        facts |= {"imported from": config["imported"]["file"], "sha256 of that file": config["imported"]["sha256"]}
    else:
        facts["seed"] = config["train"]["seed"]
        facts["epochs"] = f"{config.get('epochs')} (best {config.get('best_epoch')})"
    return facts | {"git revision": config.get("git_revision") or "not in a repository"}


def known_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `train`; for an imported model only what its tensors show, as its training is unknown."""
    settings: dict[str, Any] = config["train"]
    if "imported" not in config:
        return settings
    encoder = {name: settings["encoder"][name] for name in ("window", "hidden_size", "num_blocks", "num_heads")}
    known = {"objective": settings["objective"], "encoder": encoder}
    num_intents = settings["intents"]["num_intents"]
    return known | ({"intents": {"num_intents": num_intents}} if find_objective(settings["objective"]).intents else {})


def mark_model(ranks: pa.Table, model: Path) -> pa.Table:
    """Return `ranks` with the checksum of the weights in the folder `model`."""
    return ranks.replace_schema_metadata({_KEY: sha256_of(model / WEIGHTS).encode()})


def is_of_model(ranks: pa.Table, model: Path) -> bool:
    """Return whether `ranks` was marked with the weights in the folder `model`."""
    marked = (ranks.schema.metadata or {}).get(_KEY, b"")
    return bool(marked == sha256_of(model / WEIGHTS).encode())
