"""Which model a table of ranks is of: the weights' sha256 travels in the Parquet file's metadata."""

from pathlib import Path

import pyarrow as pa

from elcrec.artifacts import sha256_of
from elcrec.model.io import WEIGHTS

_KEY = b"model_sha256"


def mark_model(ranks: pa.Table, model: Path) -> pa.Table:
    """Return `ranks` with the checksum of the weights in the folder `model`."""
    return ranks.replace_schema_metadata({_KEY: sha256_of(model / WEIGHTS).encode()})


def is_of_model(ranks: pa.Table, model: Path) -> bool:
    """Say whether `ranks` was marked with the weights in the folder `model`."""
    marked = (ranks.schema.metadata or {}).get(_KEY, b"")
    return bool(marked == sha256_of(model / WEIGHTS).encode())
