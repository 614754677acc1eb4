"""Spark as the engine of a cluster, of this machine, or behind Spark Connect: the same SQL as DuckDB's.

Stored results are Parquet files in the work folder, which the driver and all executors must see under the same path.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.adapters.environment import environment
from elcrec.adapters.work_folder import disk_full, work_folder
from elcrec.config import EngineConfig
from elcrec.data.engine import ascending
from elcrec.errors import UserError
from elcrec.memory import granted_mb, processors
from elcrec.progress import watch

_ROWS_AT_ONCE = 1 << 17
_PARTITIONS_A_THREAD = 4
_SPECIAL = re.compile(r"([\\*?\[\]{}])")
_FULL = re.compile("no space left|quota exceeded", re.IGNORECASE)
_CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"
_ADDRESS = "SPARK_LOCAL_IP"
_INSTALL = "install the extra spark (pip install 'elcrec[spark]') and a Java runtime of version 17 or later"


class SparkEngine:
    """Opens sessions on the master that the configuration names."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    @contextmanager
    def session(self, out: Path) -> Iterator["SparkSession"]:
        """Open a session for the stage that writes `out`.

        Raises:
            UserError: Spark or Java is not installed, the master does not exist, a disk is full, or Spark failed.
        """
        master = self._config.master or f"local[{self._config.threads or processors()}]"
        with work_folder(self._config.spill, out) as folder, environment(**_variables(master)):
            spark = _connect(self._config, master, folder)
            try:
                with _clear_errors(folder):
                    yield SparkSession(spark, folder)
            finally:
                spark.stop()


class SparkSession:
    """Temporary views, and tables as folders of Parquet files."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self._spark, self._kept = spark, 0
        self._folders: dict[str, Path] = {}
        self.folder = folder

    def scan(self, name: str, files: Sequence[Path]) -> None:
        """Create a view of Parquet files. Spark numbers rows per file, so the rows of earlier files are added."""
        parts, before = [], 0
        for place, file in enumerate(files):
            part = f"{name}_file_{place}"
            self._read(file).selectExpr("*", f"_metadata.row_index + {before} AS row").createOrReplaceTempView(part)
            parts.append(f"SELECT * FROM {part}")
            before += pq.read_metadata(file).num_rows
        self.view(name, " UNION ALL ".join(parts))

    def enter(self, name: str, table: pa.Table) -> None:
        """Register a small table under a name."""
        file = self._new(name)
        pq.write_table(table, file)
        self._read(file).createOrReplaceTempView(name)

    def view(self, name: str, sql: str) -> None:
        """Give a query a name."""
        self._spark.sql(sql).createOrReplaceTempView(name)

    def table(self, name: str, sql: str) -> None:
        """Store the result of a query as files, in any order."""
        folder = self._write(name, sql)
        self._forget(name)
        self._read(folder).createOrReplaceTempView(name)
        self._folders[name] = folder

    def rename(self, name: str, to: str) -> None:
        """Rename a table; a table that had the name is dropped."""
        self._forget(to)
        self._folders[to] = self._folders.pop(name)
        self._spark.catalog.dropTempView(name)
        self._read(self._folders[to]).createOrReplaceTempView(to)

    def drop(self, name: str) -> None:
        """Drop a table."""
        self._spark.catalog.dropTempView(name)
        self._forget(name)

    def fetch(self, sql: str) -> pa.Table:
        """Return a small result."""
        with watch("counting", lambda: None):
            return self._spark.sql(sql).toArrow()

    def stream(self, sql: str, order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield an ordered result from sorted files, one after another, so that the driver never holds a whole one."""
        return ascending(self._batches(sql), order)

    def _batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        folder = self._write("sorted", sql)
        for file in sorted(folder.glob("part-*")):
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(batch_size=_ROWS_AT_ONCE)
            file.unlink()

    def _write(self, name: str, sql: str) -> Path:
        folder = self._new(name)
        with watch(name, lambda: None):
            self._spark.sql(sql).write.parquet(str(folder.absolute()))
        return folder

    def _new(self, name: str) -> Path:
        self._kept += 1
        return self.folder / f"{name}-{self._kept}"

    def _read(self, path: Path) -> Any:
        return self._spark.read.parquet(_SPECIAL.sub(r"\\\1", str(path.absolute())))

    def _forget(self, name: str) -> None:
        if name in self._folders:
            shutil.rmtree(self._folders.pop(name), ignore_errors=True)


def _variables(master: str) -> dict[str, str | None]:
    """Return the environment of one session.

    PySpark leaves a variable for Spark Connect, which would affect later sessions and child processes. And Spark on
    this machine looks up the machine's own name, which may be unknown to name services, unless an address is given.
    """
    here = {_ADDRESS: os.environ.get(_ADDRESS, "127.0.0.1")} if master.startswith("local") else {}
    return {_CONNECT_MODE: None, **here}


def _connect(config: EngineConfig, master: str, folder: Path) -> Any:
    """Start Spark, or connect to a running one.

    Raises:
        UserError: it is not installed, or cannot be reached.
    """
    try:
        from pyspark.errors import PySparkException  # noqa: PLC0415 - the extra `spark`
        from pyspark.sql import SparkSession as Builder  # noqa: PLC0415 - as above
    except ImportError as error:
        raise UserError("engine.kind spark needs PySpark", fix=_INSTALL) from error
    logging.getLogger("py4j").setLevel(logging.WARNING)
    builder = Builder.builder.appName("elcrec")
    builder = builder.remote(master) if master.startswith("sc://") else builder.master(master)
    for name, value in _settings(config, master, folder).items():
        builder = builder.config(name, value)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise UserError(f"Spark does not start ({_first_line(error)})", where=master, fix=_INSTALL) from error
    return spark


def _settings(config: EngineConfig, master: str, folder: Path) -> dict[str, str]:
    """Return the settings that results depend on, and for Spark on this machine the granted memory and folder."""
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    if master.startswith("local"):
        granted = granted_mb(config.memory_mb, config.memory_share)
        settings |= {
            "spark.driver.memory": f"{max(512, granted)}m",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": str(folder / "temporary"),
            "spark.sql.shuffle.partitions": str(_PARTITIONS_A_THREAD * (config.threads or processors())),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
        }
    return settings


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    from pyspark.errors import PySparkException  # noqa: PLC0415 - the extra `spark`

    try:
        yield
    except PySparkException as error:
        reason = _first_line(error)
        if _FULL.search(str(error)):
            raise disk_full(folder, reason) from error
        raise UserError(f"Spark cannot go on ({reason})", where=folder, fix="see Spark's log") from error


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split())[:200]
