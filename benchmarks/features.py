"""`python -m benchmarks.features`: time and memory of publishing the features of a million users."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.machine import peak_mib_of
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import ROOT, say
from benchmarks.servers import redis_server
from elcrec.adapters.store import open_store
from elcrec.serving.ports import FeatureTables

_STORES = ("sqlite", "redis")
_SERVICE = "elcrec_v1"
_ITEMS = 100_000
_HIDDEN = 64
_MEAN_LENGTH, _LONGEST = 12, 50


def make_tables(users: int) -> FeatureTables:
    """Return features of `users` users, with a dozen items each on average and vectors of 64 numbers."""
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
        # Histories after two earlier events: for training, never online.
        earlier=[pa.concat_tables([histories, histories])],
        model_outputs=pa.table(outputs),
        item_statistics=pa.table({"item_id": item_ids, "count": counts, "total": counts}),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish into a store of each kind, twice; return the exit status."""
    return launch("benchmarks.features", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs: dict[str, list[Result]] = {}
    for kind in options.stores:
        say(f"{kind}: publishing twice …")
        with tempfile.TemporaryDirectory() as folder, _address(kind, Path(folder) / "redis") as address:
            for what in ("into an empty store", "the same again"):
                runs[f"{kind}, {what}"] = [_publish_apart(options.users, Path(folder) / "store", address)]
    section: Section = {"facts": described, "counts": {"users": options.users, "items": _ITEMS}, "runs": runs}
    record(options.out, "features", section)
    say(f"wrote {options.out}")


def _address(kind: str, folder: Path) -> contextlib.AbstractContextManager[str]:
    return redis_server(folder) if kind == "redis" else contextlib.nullcontext("")


def _publish_apart(users: int, store: Path, address: str) -> Result:
    """Publish in a separate process, so that its peak memory is measured alone."""
    script = f"from benchmarks.features import publish; publish({users}, {str(store)!r})"
    environment = {**os.environ, "REDIS": address}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)


def publish(users: int, folder: str) -> None:
    """Publish into a store and print the cost as JSON.

    Memory is the peak of this process minus that before publishing, which includes the tables themselves.
    """
    tables = make_tables(users)
    before, store = peak_mib_of("self"), open_store(Path(folder)).features
    started = time.perf_counter()
    store.publish(tables, service=_SERVICE)
    result = {"seconds": time.perf_counter() - started, "before_mib": before, "peak_mib": peak_mib_of("self")}
    print(msgspec.json.encode(result).decode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--users", type=positive, default=1_000_000, help="(default 1000000)")
    parser.add_argument("--stores", nargs="+", choices=_STORES, default=_STORES)
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
