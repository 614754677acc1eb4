"""`python -m benchmarks.long_ids`: ids of more than 2^31 bytes in total, through sequences and the reader of a push."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow.compute as pc

from benchmarks.__main__ import launch, positive
from benchmarks.machine import peak_mib_of
from benchmarks.runner import elcrec, say
from elcrec.artifacts import write_json
from elcrec.custody import write_checksums
from elcrec.data.split_points import ServedHistories

_USERS, _ITEMS, _LENGTH = 900_000, 1000, 250
_LIMIT = 2**31
"""Limit at which the offsets of an Arrow array of text overflow."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the log, build its sequences, read every history back; return the exit status."""
    return launch("benchmarks.long_ids", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, _: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        _write(folder / "validated", options.events)
        settings = [f"engine.memory_mb={options.memory_mb}", "engine.threads=1"]
        words = [word for setting in settings for word in ("--set", setting)]
        elcrec("sequences", *words, "--interactions", str(folder / "validated"), "--out", str(folder / "sequences"))
        users = size = 0
        for table in ServedHistories(folder=folder / "sequences", most_seen=0):
            users += len(table)
            size += pc.sum(pc.binary_length(pc.list_flatten(table["item_ids"]))).as_py()
    if size != options.events * _LENGTH or size <= _LIMIT:
        raise RuntimeError(f"the histories hold {size:,} bytes of ids, not {options.events * _LENGTH:,}")
    say(f"{users:,} histories hold {size:,} bytes of item ids; reading them took {peak_mib_of('self'):,.0f} MiB")


def _write(folder: Path, events: int) -> None:
    folder.mkdir()
    rows = f"""SELECT CAST(i % {_USERS} AS VARCHAR) AS user_id, lpad(CAST(i % {_ITEMS} AS VARCHAR), {_LENGTH}, 'x')
        AS item_id, make_timestamptz(i * 1000000) AS timestamp FROM range({events}) AS numbers(i)"""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"COPY ({rows}) TO '{folder / 'interactions.parquet'}' (COMPRESSION zstd)")
    write_json(folder / "validation.json", {"time": "real"})
    write_checksums(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_ids", description=__doc__)
    parser.add_argument("--events", type=positive, default=9_000_000, help="(default 9000000)")
    parser.add_argument("--memory-mb", type=positive, default=1000, help="engine.memory_mb (default 1000)")
    parser.add_argument("--folder", type=Path, help="where the log is made (default: the system's temporary folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
