"""Hashes of raw ids that are the same in every process and on every machine."""

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

_KEYS = ("0123456789123456", "6543210987654321")

DIGITS = 15

Hashes = npt.NDArray[np.uint64]


def hash_ids(ids: pa.Array | pa.ChunkedArray) -> Hashes:
    """Return a hash of 64 bits of each id."""
    return _hashed(ids, _KEYS[0])


def hash_ids_twice(ids: pa.Array | pa.ChunkedArray) -> tuple[Hashes, Hashes]:
    """Return two hashes of each id, which together are unique among 10^10 ids."""
    return _hashed(ids, _KEYS[0]), _hashed(ids, _KEYS[1])


def id_code(raw_id: str) -> str:
    """Return the first digits of an id's MD5, which SQL can compute too."""
    return hashlib.md5(raw_id.encode(), usedforsecurity=False).hexdigest()[:DIGITS]


def _hashed(ids: pa.Array | pa.ChunkedArray, key: str) -> Hashes:
    values = ids.to_pandas().to_numpy(dtype=object)
    hashes: Hashes = pd.util.hash_array(values, hash_key=key, categorize=False)
    return hashes
