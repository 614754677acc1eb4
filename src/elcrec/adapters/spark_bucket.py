"""The tables of a Spark session as Parquet files in a bucket, where driver and executors share no file system.

Spark reads and writes them through a data source in Python, which runs in its workers and takes PyArrow's client of S3.
So it needs neither Hadoop's S3A nor its configuration: credentials, region and endpoint are the usual `AWS_…`.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from elcrec.adapters.spark_folder import ROWS_AT_ONCE
from elcrec.errors import UserError

_SCHEME = "s3://"
_FORMAT = "elcrec_bucket"
_CONTENTS = "contents.json"
_ROW = "row"
_GROUP_ROWS = 1 << 19


def _s3() -> pyarrow.fs.FileSystem:
    """Return a client that takes the same variables as boto3; a server of one's own has buckets as folders."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return pyarrow.fs.S3FileSystem()
    parts = urlsplit(endpoint)
    return pyarrow.fs.S3FileSystem(endpoint_override=parts.netloc + parts.path.rstrip("/"), scheme=parts.scheme)


@contextmanager
def bucket_tables(spark: Any, address: str) -> Iterator["BucketTables"]:
    """Yield the tables of one session, in a folder of its own below `address`, which is empty again at the end.

    Args:
        spark: the session.
        address: `s3://BUCKET/FOLDER`.

    Raises:
        UserError: nothing can be written there.
    """
    files = _s3()
    folder = f"{address.removeprefix(_SCHEME).rstrip('/')}/elcrec-{uuid.uuid4().hex}"
    try:
        with files.open_output_stream(f"{folder}/begun") as begun:
            begun.write(b"")
        spark.dataSource.register(_Bucket)
        yield BucketTables(spark, files, folder)
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        fix = "check the bucket, and the credentials, region and endpoint in AWS_…"
        raise UserError(f"the bucket of engine.spill fails ({reason})", where=address, fix=fix) from error
    finally:
        _empty(files, folder)


class BucketTables:
    """`Tables` in a bucket."""

    def __init__(self, spark: Any, files: pyarrow.fs.FileSystem, folder: str) -> None:
        self._spark, self._files, self._folder = spark, files, folder
        self._schemas: dict[str, Any] = {}

    def scan(self, files: Sequence[Path]) -> Any:
        """See `Tables`. The files are copied into the bucket."""
        key, contents = f"given-{uuid.uuid4().hex}", list[_File]()
        for place, file in enumerate(files):
            name = f"{place}.parquet"
            pyarrow.fs.copy_files(
                str(file.absolute()), f"{self._folder}/{key}/{name}", pyarrow.fs.LocalFileSystem(), self._files
            )
            contents.append(_File(name, _rows_of_groups(pq.read_metadata(file))))
        _note(self._files, f"{self._folder}/{key}", contents)
        schema = pq.read_schema(files[0]).append(pa.field(_ROW, pa.int64(), nullable=False))
        return self._frame(key, _spark_schema(schema), numbered=True)

    def write(self, key: str, frame: Any) -> None:
        """See `Tables`."""
        frame.write.format(_FORMAT).option("folder", f"{self._folder}/{key}").mode("append").save()
        self._schemas[key] = frame.schema

    def read(self, key: str) -> Any:
        """See `Tables`."""
        return self._frame(key, self._schemas[key])

    def enter(self, key: str, table: pa.Table) -> Any:
        """See `Tables`."""
        name = "0.parquet"
        pq.write_table(table, f"{self._folder}/{key}/{name}", filesystem=self._files)
        _note(self._files, f"{self._folder}/{key}", [_File(name, (len(table),))])
        return self._frame(key, _spark_schema(table.schema))

    def batches(self, key: str) -> Iterator[pa.RecordBatch]:
        """See `Tables`."""
        folder = f"{self._folder}/{key}"
        for file in _contents(self._files, folder):
            with pq.ParquetFile(f"{folder}/{file.name}", filesystem=self._files, pre_buffer=True) as parquet:
                yield from parquet.iter_batches(batch_size=ROWS_AT_ONCE)
            self._files.delete_file(f"{folder}/{file.name}")

    def remove(self, key: str) -> None:
        """See `Tables`."""
        _empty(self._files, f"{self._folder}/{key}")

    def _frame(self, key: str, schema: Any, *, numbered: bool = False) -> Any:
        reader = self._spark.read.format(_FORMAT).schema(schema)
        return reader.option("folder", f"{self._folder}/{key}").option("numbered", numbered).load()


class _File(NamedTuple):
    """A file of a table, and how many rows each of its groups has."""

    name: str
    groups: tuple[int, ...]


@dataclass(frozen=True)
class _Group(InputPartition):
    """A group of rows of a file, and how many rows are before it in all files."""

    file: str
    number: int
    before: int


@dataclass(frozen=True)
class _Written(WriterCommitMessage):
    """The file of a partition."""

    partition: int
    file: _File | None


class _Bucket(DataSource):
    """Runs in Spark's Python workers."""

    @classmethod
    def name(cls) -> str:
        return _FORMAT

    def reader(self, schema: Any) -> "_Reader":
        return _Reader(self.options["folder"], schema, numbered=self.options["numbered"] == "true")

    def writer(self, schema: Any, overwrite: bool) -> "_Writer":  # noqa: ARG002 - batches have it already
        return _Writer(self.options["folder"])


class _Reader(DataSourceReader):
    """A partition is a group of rows."""

    def __init__(self, folder: str, schema: Any, *, numbered: bool) -> None:
        self._folder, self._schema, self._numbered = folder, schema, numbered

    def partitions(self) -> Sequence[InputPartition]:
        found, before = list[InputPartition](), 0
        for file in _contents(_s3(), self._folder):
            for number, rows in enumerate(file.groups):
                found.append(_Group(file.name, number, before))
                before += rows
        return found

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        if not isinstance(partition, _Group):
            return
        path, before = f"{self._folder}/{partition.file}", partition.before
        # Spark asks for its own names of what is inside a list, and its own word on what may be null.
        schema = to_arrow_schema(self._schema, timezone="UTC")
        with pq.ParquetFile(path, filesystem=_s3(), pre_buffer=True) as parquet:
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[partition.number]):
                rows = pa.array(np.arange(before, before + len(batch)))
                yield (batch.append_column(_ROW, rows) if self._numbered else batch).cast(schema)
                before += len(batch)


class _Writer(DataSourceArrowWriter):
    """A partition is a file. Only the files of tasks that count are in the contents, whatever else a retry left."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def write(self, iterator: Iterator[pa.RecordBatch]) -> _Written:
        context = TaskContext.get()
        partition = context.partitionId() if context else 0
        name, groups = f"{partition:06d}-{uuid.uuid4().hex}.parquet", _groups(iterator)
        first = next(groups, None)
        if first is None:
            return _Written(partition, None)
        with pq.ParquetWriter(f"{self._folder}/{name}", first.schema, filesystem=_s3()) as writer:
            rows = list[int]()
            for group in chain([first], groups):
                writer.write_table(group, row_group_size=len(group))
                rows.append(len(group))
        return _Written(partition, _File(name, tuple(rows)))

    def commit(self, messages: Sequence[WriterCommitMessage | None]) -> None:
        written = {each.partition: each.file for each in messages if isinstance(each, _Written) and each.file}
        _note(_s3(), self._folder, [written[partition] for partition in sorted(written)])


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the batches as tables of about `_GROUP_ROWS` rows: a group is what a task reads later on."""
    waiting, rows = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= _GROUP_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting)


def _rows_of_groups(metadata: pq.FileMetaData) -> tuple[int, ...]:
    return tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))


def _note(files: pyarrow.fs.FileSystem, folder: str, contents: Sequence[_File]) -> None:
    with files.open_output_stream(f"{folder}/{_CONTENTS}") as stream:
        stream.write(json.dumps(contents).encode())


def _contents(files: pyarrow.fs.FileSystem, folder: str) -> list[_File]:
    """Return the files of a table, in the order of its rows."""
    with files.open_input_stream(f"{folder}/{_CONTENTS}") as stream:
        return [_File(name, tuple(groups)) for name, groups in json.loads(stream.read())]


def _spark_schema(schema: pa.Schema) -> Any:
    return from_arrow_schema(schema, prefer_timestamp_ntz=False)


def _empty(files: pyarrow.fs.FileSystem, folder: str) -> None:
    try:
        files.delete_dir(folder)
    except OSError:  # gone already, or not reached: what is left has the name of a session that is over
        return
