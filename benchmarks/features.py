"""Time and memory of publishing features for many users: `python -m benchmarks.features --users 1000000`.

The online store is SQLite in a temporary folder, or the Redis that `REDIS` names. Memory is the peak of this process,
less what it had before the publication began, and includes the tables themselves.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from elcrec.adapters.store import open_store
from elcrec.serving.ports import FeatureTables

_SERVICE = "elcrec_v1"
_ITEMS = 100_000
_HIDDEN = 64
_MEAN_LENGTH, _LONGEST = 12, 50


def make_tables(users: int) -> FeatureTables:
    """Return features of `users` users: a dozen items each on average, vectors of 64 numbers."""
    chance = np.random.default_rng(0)
    lengths = np.minimum(chance.geometric(1 / _MEAN_LENGTH, users), _LONGEST)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    item_ids = pa.array([f"item-{item}" for item in range(_ITEMS)])
    items = item_ids.take(pa.array(chance.integers(0, _ITEMS, offsets[-1])))
    times = pa.array(np.arange(offsets[-1]) * 1_000_000, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    user_ids = pa.array([f"user-{user}" for user in range(users)])
    ends = pa.array(offsets, pa.int32())
    histories = pa.table(
        {
            "user_id": user_ids,
            "item_ids": pa.ListArray.from_arrays(ends, items),
            "event_times": pa.ListArray.from_arrays(ends, times),
            "event_timestamp": times.take(pa.array(offsets[1:] - 1)),
        }
    )
    vectors = pa.array(chance.random(users * _HIDDEN, np.float32))
    outputs = {
        "user_id": user_ids,
        "intent": pa.array(chance.integers(0, 256, users)),
        "vector": pa.ListArray.from_arrays(pa.array(np.arange(users + 1) * _HIDDEN, pa.int32()), vectors),
        "bundle": pa.array(["0" * 64] * users),
    }
    counts = np.bincount(chance.integers(0, _ITEMS, _ITEMS * 10), minlength=_ITEMS)
    return FeatureTables(
        histories=histories,
        earlier=histories.slice(0, 0),
        model_outputs=pa.table(outputs),
        item_statistics=pa.table({"item_id": item_ids, "count": counts, "total": counts}),
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _publish(tables: FeatureTables, folder: Path) -> float:
    store = open_store(folder).features
    started = time.perf_counter()
    store.publish(tables, service=_SERVICE)
    return time.perf_counter() - started


def main() -> None:
    """Publish twice and print a line each: into an empty store, and again over what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    options = parser.parse_args()
    kind = "Redis" if os.environ.get("REDIS") else "SQLite"
    with tempfile.TemporaryDirectory() as name:
        tables = make_tables(options.users)
        before = _peak_mib()
        for what in ("first", "again"):
            seconds = _publish(tables, Path(name))
            rate = options.users / seconds
            print(
                f"{kind}, {options.users} users, {what}: {seconds:.0f} s, {rate:.0f} users/s, "
                f"peak {_peak_mib():.0f} MiB ({before:.0f} MiB before)",
                flush=True,
            )


if __name__ == "__main__":
    main()
