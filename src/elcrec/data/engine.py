"""What data stages need of an engine: tables by name, one SQL text, and ordered streams of the results.

The SQL is common to DuckDB and Spark. Two names differ between them and are taken as Spark has them: `unix_micros`, and
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
    """Tables of one run of a stage. All of them are gone when it ends."""

    @property
    def folder(self) -> Path:
        """Where the stage may keep files that are gone as well when the session ends."""

    def scan(self, name: str, files: Sequence[Path]) -> None:
        """Make Parquet files a view of their columns and `row`, a row's place (from 0) in all of them together."""

    def enter(self, name: str, table: pa.Table) -> None:
        """Make a small table known by a name."""

    def view(self, name: str, sql: str) -> None:
        """Give a query a name."""

    def table(self, name: str, sql: str) -> None:
        """Keep the result of a query under a name, on disk where memory does not do."""

    def rename(self, name: str, to: str) -> None:
        """Give a table the name of another, which is forgotten."""

    def drop(self, name: str) -> None:
        """Forget a table."""

    def fetch(self, sql: str) -> pa.Table:
        """Return a small result."""

    def stream(self, sql: str, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield a result of any size, ordered by `order`, columns of integers that name each row once.

        Several streams may be read in turn.

        Raises:
            RuntimeError: the engine returned it in another order.
        """


class Engine(Protocol):
    """Opens sessions."""

    def session(self, out: Path) -> AbstractContextManager[Session]:
        """Open a session for the stage that writes `out`; what a killed run left of one for `out` goes away."""


def ascending(batches: Iterator[pa.RecordBatch], order: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the batches and check that their rows ascend in `order`, without a tie.

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
    """Say for each row but the first whether it comes after the row before it."""
    above = np.zeros(len(keys[0]) - 1, bool)
    for key in reversed(keys):
        steps = np.diff(key)
        above = (steps > 0) | ((steps == 0) & above)
    return above
