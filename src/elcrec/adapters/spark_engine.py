"""Spark as the engine of a cluster, of this machine, or behind Spark Connect: the same SQL as DuckDB's.

Results that are kept are Parquet files in the work folder, which the driver and all executors must see under the same
path, or in a bucket that all of them reach.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from elcrec.adapters.environment import environment
from elcrec.adapters.spark_folder import FolderTables, Tables
from elcrec.adapters.work_folder import disk_full, work_folder
from elcrec.config import EngineConfig, is_bucket
from elcrec.data.engine import ascending
from elcrec.errors import LostWorkError, UserError
from elcrec.memory import granted_mb, processors
from elcrec.progress import watch

_PARTITIONS_A_THREAD = 4
_FULL = re.compile("no space left|quota exceeded", re.IGNORECASE)
_FAULT_OF_S3 = re.compile("AWS Error (NETWORK_CONNECTION|SLOW_DOWN|INTERNAL_FAILURE|SERVICE_UNAVAILABLE)")
"""What a bucket answers that may be over when somebody tries again."""
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception)\b")
_CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"
_ADDRESS, _PYTHON = "SPARK_LOCAL_IP", "PYSPARK_PYTHON"
_LEFT_BEHIND = ("SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE")
"""What PySpark leaves in the environment when it starts a Spark on this machine."""
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
        master, spill = self._config.master or f"local[{self._config.threads or processors()}]", self._config.spill
        bucket = spill if spill is not None and is_bucket(spill) else None
        with work_folder(None if bucket else spill, out) as folder, environment(**_variables(master)):
            spark = _connect(self._config, master, folder)
            try:
                with _clear_errors(folder, bucket), _tables(spark, folder, bucket) as tables:
                    yield SparkSession(spark, folder, tables)
            finally:
                spark.stop()


class SparkSession:
    """Temporary views, and tables as files."""

    def __init__(self, spark: Any, folder: Path, tables: Tables) -> None:
        self._spark, self._tables, self._kept = spark, tables, 0
        self._keys: dict[str, str] = {}
        self.folder = folder

    def scan(self, name: str, files: Sequence[Path]) -> None:
        """Make Parquet files a view."""
        self._tables.scan(files).createOrReplaceTempView(name)

    def enter(self, name: str, table: pa.Table) -> None:
        """Register a small table under a name."""
        self._tables.enter(self._new(name), table).createOrReplaceTempView(name)

    def view(self, name: str, sql: str) -> None:
        """Give a query a name."""
        self._spark.sql(sql).createOrReplaceTempView(name)

    def table(self, name: str, sql: str) -> None:
        """Store the result of a query as files, in any order."""
        key = self._write(name, sql)
        self._forget(name)
        self._tables.read(key).createOrReplaceTempView(name)
        self._keys[name] = key

    def rename(self, name: str, to: str) -> None:
        """Rename a table; a table that had the name is dropped."""
        self._forget(to)
        self._keys[to] = self._keys.pop(name)
        self._spark.catalog.dropTempView(name)
        self._tables.read(self._keys[to]).createOrReplaceTempView(to)

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
        yield from self._tables.batches(self._write("sorted", sql))

    def _write(self, name: str, sql: str) -> str:
        key = self._new(name)
        with watch(name, lambda: None):
            self._tables.write(key, self._spark.sql(sql))
        return key

    def _new(self, name: str) -> str:
        self._kept += 1
        return f"{name}-{self._kept}"

    def _forget(self, name: str) -> None:
        if name in self._keys:
            self._tables.remove(self._keys.pop(name))


@contextmanager
def _tables(spark: Any, folder: Path, bucket: str | None) -> Iterator[Tables]:
    """Yield where a session keeps its tables."""
    if bucket is None:
        yield FolderTables(spark, folder)
        return
    from elcrec.adapters.spark_bucket import bucket_tables  # noqa: PLC0415 - the extra `spark`

    with bucket_tables(spark, bucket) as tables:
        yield tables


def _variables(master: str) -> dict[str, str | None]:
    """Return the environment of one session.

    PySpark leaves its mark of Spark Connect there, for later sessions and children. And Spark on this machine looks up
    the machine's own name, which need not be in any name service, unless it is told an address; its workers are the
    first Python in the path, which need not be this one.
    """
    if not master.startswith("local"):
        return {_CONNECT_MODE: None}
    left = {name: os.environ.get(name) for name in _LEFT_BEHIND}
    own = {_ADDRESS: os.environ.get(_ADDRESS, "127.0.0.1"), _PYTHON: sys.executable}
    return {_CONNECT_MODE: None, **left, **own}


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
        raise UserError(f"Spark does not start ({_reason(error)})", where=master, fix=_INSTALL) from error
    return spark


def _settings(config: EngineConfig, master: str, folder: Path) -> dict[str, str]:
    """Return the settings that results depend on, and for Spark on this machine the granted memory and folder."""
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        # Times of a log are read before it comes here; what stands beside them as it was given no query asks for.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
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
def _clear_errors(folder: Path, bucket: str | None) -> Iterator[None]:
    from pyspark.errors import PySparkException  # noqa: PLC0415 - the extra `spark`

    try:
        yield
    except PySparkException as error:
        reason = _reason(error)
        if _FULL.search(str(error)):
            raise disk_full(folder, reason) from error
        kind = LostWorkError if bucket and _FAULT_OF_S3.search(str(error)) else UserError
        raise kind(f"Spark cannot go on ({reason})", where=bucket or folder, fix="see Spark's log") from error


def _reason(error: BaseException) -> str:
    """Return the first line, and where that only announces the traceback of a worker, the exception at its end."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    if "Traceback (most recent call last)" in first:
        first = next((line for line in reversed(others) if _EXCEPTION.match(line.strip())), first)
    return " ".join(first.split())[:200]
