"""Parquet files written by row groups, so that their bytes depend only on the rows, and read in parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1 << 20
"""Rows of a row group, as when pyarrow writes a whole table."""
_READ_ROWS = 8192


class RowGroups:
    """Gathers tables into row groups of equal size, independently of the sizes of the tables."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._held = [writer.schema.empty_table()]
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Write full row groups, keep the rest."""
        self._held.append(table)
        self.rows += len(table)
        while self._waiting >= ROWS:
            self._write(ROWS)

    def finish(self) -> None:
        """Write the rest; a file without rows has an empty row group."""
        if self._waiting or not self.rows:
            self._write(ROWS)

    @property
    def _waiting(self) -> int:
        return sum(map(len, self._held))

    def _write(self, rows: int) -> None:
        table = pa.concat_tables(self._held)
        write_row_group(self._writer, table.slice(0, rows))
        rest = table.slice(rows)
        self._held = [rest]


def write_row_group(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Write a table as one row group; it is combined into one chunk, because pages begin where chunks do."""
    writer.write_table(table.combine_chunks(), row_group_size=max(1, len(table)))


@contextmanager
def row_groups(file: Path, schema: pa.Schema) -> Iterator[RowGroups]:
    """Open a file for writing; it is complete when the block ends without an error."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        groups = RowGroups(writer)
        yield groups
        groups.finish()


class RowReader:
    """Reads a Parquet file from a given row, any number of rows at a time, independently of its row groups."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str] | None = None, start: int = 0) -> None:
        self._batches = _batches(file, columns, start)
        self._empty = file.schema_arrow.empty_table() if columns is None else file.read_row_groups([], columns)
        self._held: list[pa.Table] = []

    def read(self, rows: int) -> pa.Table:
        """Return the next rows; at the end fewer, then none."""
        while sum(map(len, self._held)) < rows and (batch := next(self._batches, None)) is not None:
            self._held.append(pa.Table.from_batches([batch]))
        table = pa.concat_tables([self._empty, *self._held])
        self._held = [table.slice(rows)]
        return table.slice(0, rows)


def _batches(file: pq.ParquetFile, columns: Sequence[str] | None, start: int) -> Iterator[pa.RecordBatch]:
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if start < size:
            for batch in file.iter_batches(_READ_ROWS, [group], columns):
                yield batch.slice(start)
                start = max(0, start - len(batch))
        else:
            start -= size


def blocks(path: Path, rows: int, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[pa.Table]:
    """Yield a file from a given row, `size` rows at a time; a file without rows gives one empty table."""
    with pq.ParquetFile(path) as file:
        reader = RowReader(file, columns, start)
        table = reader.read(rows)
        yield table
        while len(table) == rows:
            table = reader.read(rows)
            if len(table):
                yield table
