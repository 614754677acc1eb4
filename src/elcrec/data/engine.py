"""The interface of engines for data stages: named tables, common SQL, and ordered streams of results.

The same SQL runs on DuckDB and Spark. Two functions have different names, of which we use Spark's: `unix_micros`, and
`xxhash64`, which only narrows a search, so that no result depends on it.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Session(Protocol):
    """Tables of one run of a stage; all are deleted when it ends."""

    @property
    def folder(self) -> Path:
        """Folder for the stage's temporary files, deleted when the session ends."""

    def scan(self, name: str, files: Sequence[Path]) -> None:
        """Create a view of Parquet files with their columns and `row`, the position (from 0) over all files."""

    def enter(self, name: str, table: pa.Table) -> None:
        """Register a small table under a name."""

    def view(self, name: str, sql: str) -> None:
        """Give a query a name."""

    def table(self, name: str, sql: str) -> None:
        """Store the result of a query under a name, on disk if memory does not suffice."""

    def rename(self, name: str, to: str) -> None:
        """Rename a table; a table that had the name is dropped."""

    def drop(self, name: str) -> None:
        """Drop a table."""

    def fetch(self, sql: str) -> pa.Table:
        """Return a small result."""

    def stream(self, sql: str, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield a result of any size, ordered by `order`: integer columns that identify each row.

        Several streams may be read alternately.

        Raises:
            RuntimeError: the engine returned it in another order.
        """


class Engine(Protocol):
    """Opens sessions."""

    def session(self, out: Path) -> AbstractContextManager[Session]:
        """Open a session for the stage that writes `out`; leftovers of a killed run for `out` are removed."""


def ascending(batches: Iterator[pa.RecordBatch], order: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches and check that their rows strictly ascend in `order`.

    Raises:
        RuntimeError: they do not.
    """
    last = None
    for batch in batches:
        if not batch.num_rows:
            continue
        keys = [np.asarray(batch.column(name)) for name in order]
        if last is not None:
            keys = [np.concatenate(([before], key)) for before, key in zip(last, keys, strict=True)]
        if not _ascend(keys).all():
            raise RuntimeError(f"the engine lost the order by {', '.join(order)}")
        last = [key[-1] for key in keys]
        yield batch


def _ascend(keys: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Return for each row but the first whether it comes after the previous row."""
    above = np.zeros(len(keys[0]) - 1, bool)
    for key in reversed(keys):
        steps = np.diff(key)
        above = (steps > 0) | ((steps == 0) & above)
    return above
