"""What two versions of one log have in common: users, items, and the time that they cover."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.id_hashes import DIGITS

SAMPLE = 512
"""Ids of a sketch: a share that two sketches give is off by 2 % of all ids, and exact for fewer ids."""


class Sketches(NamedTuple):
    """A sample of the ids of users and of items: the smallest of their hashes, in order."""

    users: list[str]
    items: list[str]


def sketch(session: Session, table: str, column: str) -> list[str]:
    """Return the smallest hashes of a table's ids; the same ids give the same ones in every log."""
    hashed = f"SELECT substr(md5({column}), 1, {DIGITS}) AS code FROM {table}"
    codes: list[str] = session.fetch(f"{hashed} ORDER BY code LIMIT {SAMPLE}")["code"].to_pylist()
    return codes


def known_share(now: Sequence[str], before: Sequence[str]) -> float:
    """Return the share of a log's ids that an earlier log had, as their sketches tell."""
    last = before[-1] if len(before) == SAMPLE else max([*before, *now], default="")
    sample = [code for code in now if code <= last]
    return len(set(sample) & set(before)) / len(sample) if sample else 0.0


def longest_gap(days: pa.Table, day: int) -> int:
    """Return the most days in a row without an event, between the first and the last."""
    steps = np.diff(np.asarray(days["day"], np.int64)) // day
    return int(steps.max(initial=1)) - 1
