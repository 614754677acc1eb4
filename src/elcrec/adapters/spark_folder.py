"""The tables of a Spark session as Parquet files in a folder that the driver and all executors see."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_AT_ONCE = 1 << 17
_SPECIAL = re.compile(r"([\\*?\[\]{}])")


class Tables(Protocol):
    """Where a session keeps its tables; each has a key."""

    def scan(self, files: Sequence[Path]) -> Any:
        """Return a frame of Parquet files of this machine, with `row`: a row's place, from 0, in all of them."""

    def write(self, key: str, frame: Any) -> None:
        """Keep a frame."""

    def read(self, key: str) -> Any:
        """Return a frame of what was kept."""

    def enter(self, key: str, table: pa.Table) -> Any:
        """Keep a small table; return a frame of it."""

    def batches(self, key: str) -> Iterator[pa.RecordBatch]:
        """Yield what was kept, in the order of the frame, and remove what has been read."""

    def remove(self, key: str) -> None:
        """Remove what was kept, if it is there."""


class FolderTables:
    """`Tables` in a folder."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self._spark, self._folder = spark, folder.absolute()

    def scan(self, files: Sequence[Path]) -> Any:
        """See `Tables`. Spark numbers the rows of one file, so those of earlier files are added."""
        frame, before = None, 0
        for file in files:
            part = self._read(file).selectExpr("*", f"_metadata.row_index + {before} AS row")
            frame = part if frame is None else frame.unionByName(part)
            before += pq.read_metadata(file).num_rows
        return frame

    def write(self, key: str, frame: Any) -> None:
        """See `Tables`."""
        frame.write.parquet(str(self._folder / key))

    def read(self, key: str) -> Any:
        """See `Tables`."""
        return self._read(self._folder / key)

    def enter(self, key: str, table: pa.Table) -> Any:
        """See `Tables`."""
        pq.write_table(table, self._folder / key)
        return self.read(key)

    def batches(self, key: str) -> Iterator[pa.RecordBatch]:
        """See `Tables`."""
        for file in sorted((self._folder / key).glob("part-*")):
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(batch_size=ROWS_AT_ONCE)
            file.unlink()

    def remove(self, key: str) -> None:
        """See `Tables`."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def _read(self, path: Path) -> Any:
        return self._spark.read.parquet(_SPECIAL.sub(r"\\\1", str(path.absolute())))
