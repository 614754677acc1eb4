"""Which model ranks are of: its name, and the weights' sha256, which travels in the Parquet file's metadata."""

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


def mark_model(ranks: pa.Table, model: Path) -> pa.Table:
    """Return `ranks` with the checksum of the weights in the folder `model`."""
    return ranks.replace_schema_metadata({_KEY: sha256_of(model / WEIGHTS).encode()})


def is_of_model(ranks: pa.Table, model: Path) -> bool:
    """Return whether `ranks` was marked with the weights in the folder `model`."""
    marked = (ranks.schema.metadata or {}).get(_KEY, b"")
    return bool(marked == sha256_of(model / WEIGHTS).encode())
