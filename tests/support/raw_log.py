"""Logs of raw integer ids as lists, and the sequences folders made from them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import write_json
from elcrec.config import SequencesConfig, SyntheticConfig
from elcrec.data.synthetic import generate
from elcrec.stages.sequences import build_sequences
from tests.support.engines import ENGINE

Log = Mapping[str, Sequence[int]]


def sample_log(config: SyntheticConfig) -> dict[str, list[int]]:
    """The generated log with items numbered from 1, in another order than that of their first appearance."""
    log = generate(config).log
    _, codes = np.unique(log["item_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    rows: dict[str, list[int]] = {}
    for user, code in zip(log["user_id"].to_pylist(), codes.tolist(), strict=True):
        rows.setdefault(user, []).append(code + 1)
    assert any(later < earlier for earlier, later in pairwise(codes.tolist()))
    return rows


def benchmark_log(path: Path, users: int) -> dict[str, list[int]]:
    """The first users of a file with a line a user: her id, then item ids."""
    with path.open(encoding="utf-8") as file:
        lines = [line.split() for line, _ in zip(file, range(users), strict=False)]
    return {user: [int(item) for item in items] for user, *items in lines}


def write_sequences(log: Mapping[str, Sequence[object]], root: Path) -> Path:
    """Run the sequences stage on a log; return its folder."""
    validated = root / "validated"
    validated.mkdir(parents=True)
    users = [user for user, items in log.items() for _ in items]
    items = [str(item) for row in log.values() for item in row]
    seconds = [place for row in log.values() for place in range(1, len(row) + 1)]
    times = pa.array(seconds, pa.timestamp("s", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times})
    pq.write_table(table, validated / "interactions.parquet")
    write_json(validated / "validation.json", {"time": "order"})
    build_sequences(SequencesConfig(), validated, root / "sequences", engine=ENGINE)
    return root / "sequences"
