"""Parquet files written a row group at a time, so that their bytes depend on the rows alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1 << 20
"""Rows of a row group, as pyarrow writes a table whole."""


class RowGroups:
    """Gathers tables into row groups of equal size, however the tables are cut."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._held = [writer.schema.empty_table()]
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Write what fills a row group, keep the rest."""
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
    """Write a table as one row group; pages begin where the table's chunks do, so it has one alone."""
    writer.write_table(table.combine_chunks(), row_group_size=max(1, len(table)))


@contextmanager
def row_groups(file: Path, schema: pa.Schema) -> Iterator[RowGroups]:
    """Open a file; it is whole when the block ends without an error."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        groups = RowGroups(writer)
        yield groups
        groups.finish()
