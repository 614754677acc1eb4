"""Comparison of two versions of a log: common users and items, and gaps in time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.id_hashes import DIGITS

SAMPLE = 512
"""Number of ids in a sketch: the share from two sketches has an error of 2 %, and is exact for fewer ids."""


class Sketches(NamedTuple):
    """Samples of the ids of users and of items: the smallest of their hashes, sorted."""

    users: list[str]
    items: list[str]


def sketch(session: Session, table: str, column: str) -> list[str]:
    """Return the smallest hashes of a table's ids; the same ids give the same hashes in every log."""
    hashed = f"SELECT substr(md5({column}), 1, {DIGITS}) AS code FROM {table}"
    codes: list[str] = session.fetch(f"{hashed} ORDER BY code LIMIT {SAMPLE}")["code"].to_pylist()
    return codes


def known_share(now: Sequence[str], before: Sequence[str]) -> float:
    """Return the share of a log's ids that an earlier log had, estimated from their sketches."""
    last = before[-1] if len(before) == SAMPLE else max([*before, *now], default="")
    sample = [code for code in now if code <= last]
    return len(set(sample) & set(before)) / len(sample) if sample else 0.0


def longest_gap(days: pa.Table, day: int) -> int:
    """Return the largest number of consecutive days without an event, between the first and the last event."""
    steps = np.diff(np.asarray(days["day"], np.int64)) // day
    return int(steps.max(initial=1)) - 1
