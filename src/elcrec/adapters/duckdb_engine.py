"""DuckDB as the engine of one machine: tables are in memory up to a limit, and beyond it in temporary files."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.adapters.work_folder import disk_full, work_folder
from elcrec.config import EngineConfig
from elcrec.data.engine import ascending
from elcrec.errors import UserError
from elcrec.memory import address_space_left, granted_mb, processors
from elcrec.progress import watch

_ROWS_AT_ONCE = 1 << 17
_LEAST_SPACE = 512 << 20
_OWN_SHARE = 0.75
"""DuckDB's share of the granted memory; the rest is for data in Python at the same time."""
_THREAD_MB = 125
"""Memory that a thread needs for a join that spills, according to DuckDB's guide to its settings."""
_FULL = re.compile("max_temp_directory_size|no space left|file too large|quota", re.IGNORECASE)
_SET_UP = (
    # The operating system caches pages of files, and frees them when memory is needed.
    "SET enable_external_file_cache = false",
    "SET enable_progress_bar = true",
    "SET enable_progress_bar_print = false",
    "CREATE MACRO xxhash64(x, y) AS hash(x, y), (x, y, z) AS hash(x, y, z), (x, y, z, w) AS hash(x, y, z, w)",
    "CREATE MACRO unix_micros(moment) AS epoch_us(moment)",
)


class DuckDBEngine:
    """Opens databases with the memory, threads and folder that the configuration grants."""

    def __init__(self, config: EngineConfig) -> None:
        """Keep the configuration.

        Raises:
            UserError: the limit of the address space is below what DuckDB's threads need.
        """
        left = address_space_left()
        if left is not None and left < _LEAST_SPACE:
            # With less, native libraries end the process without a message, at any point.
            what = f"out of memory: the engine needs {_LEAST_SPACE >> 20} MiB of address space, {left >> 20} are left"
            raise UserError(what, fix="allow more (ulimit -v)")
        self._config = config

    @contextmanager
    def session(self, out: Path) -> Iterator["DuckDBSession"]:
        """Open a session for the stage that writes `out`.

        Raises:
            UserError: the folder cannot be made, a disk is full, or the memory is too small.
        """
        with work_folder(self._config.spill, out) as folder, _clear_errors(folder):
            connection = duckdb.connect(config=_settings(self._config, folder))
            try:
                for statement in _SET_UP:
                    connection.execute(statement)
                yield DuckDBSession(connection, folder)
            finally:
                connection.close()


class DuckDBSession:
    """Tables of a DuckDB database."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self.folder = folder

    def scan(self, name: str, files: Sequence[Path]) -> None:
        """Create a view of Parquet files. DuckDB numbers rows per file, so the rows of earlier files are added."""
        parts, before = [], 0
        for file in files:
            path = str(file).replace("'", "''")
            rows = f"file_row_number + {before} AS row"
            read = f"read_parquet('{path}', file_row_number = true)"
            parts.append(f"SELECT * EXCLUDE (file_row_number), {rows} FROM {read}")
            before += pq.read_metadata(file).num_rows
        self.view(name, " UNION ALL ".join(parts))

    def enter(self, name: str, table: pa.Table) -> None:
        """Register a small table under a name."""
        self._connection.register(name, table)

    def view(self, name: str, sql: str) -> None:
        """Give a query a name."""
        self._connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def table(self, name: str, sql: str) -> None:
        """Store the result of a query, in any order, which needs less memory."""
        self._connection.execute("SET preserve_insertion_order = false")
        with watch(name, self._progress):
            self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {sql}")

    def rename(self, name: str, to: str) -> None:
        """Rename a table; a table that had the name is dropped."""
        self.drop(to)
        self._connection.execute(f"ALTER TABLE {name} RENAME TO {to}")

    def drop(self, name: str) -> None:
        """Drop a table."""
        self._connection.execute(f"DROP TABLE {name}")

    def fetch(self, sql: str) -> pa.Table:
        """Return a small result."""
        self._connection.execute("SET preserve_insertion_order = true")
        with watch("counting", self._progress):
            return self._connection.sql(sql).to_arrow_table()

    def stream(self, sql: str, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield an ordered result; each stream has a cursor of its own."""
        # Without this setting, the result of an ORDER BY fetched through Arrow is unordered (DuckDB 2.0).
        self._connection.execute("SET preserve_insertion_order = true")
        return ascending(self._batches(sql), order)

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        cursor = self._connection.cursor()
        try:
            with watch("sorting", lambda: None):
                reader = cursor.sql(sql).to_arrow_reader(_ROWS_AT_ONCE)
                first = next(reader, None)
            if first is not None:
                yield first
                yield from reader
        finally:
            cursor.close()

    def _progress(self) -> float | None:
        done = self._connection.query_progress()
        return done / 100 if done >= 0 else None


def _settings(config: EngineConfig, folder: Path) -> dict[str, str | bool | int | float | list[str]]:
    own = int(granted_mb(config.memory_mb, config.memory_share) * _OWN_SHARE)
    return {
        "memory_limit": f"{own}MB",
        "threads": min(config.threads or processors(), max(1, own // _THREAD_MB)),
        "temp_directory": str(folder / "temporary"),
    }


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        reason = " ".join(str(error).split())
        if _FULL.search(reason):
            raise disk_full(folder, reason[:200]) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            fix = "raise engine.memory_mb or engine.memory_share, or lower engine.threads"
            raise UserError(f"the engine needs more memory ({reason[:200]})", where=folder, fix=fix) from error
        raise UserError(f"the engine cannot go on ({reason[:200]})", where=folder) from error
