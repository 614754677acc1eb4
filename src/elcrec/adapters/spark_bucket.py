"""The tables of a Spark session as Parquet files in a bucket, where driver and executors share no file system.

Spark reads and writes them through a data source in Python, which runs in its workers and takes PyArrow's client of S3.
So it needs neither Hadoop's S3A nor its configuration: credentials, region and endpoint are the usual `AWS_…`.
"""

import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
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
from elcrec.errors import LostWorkError, UserError

logger = logging.getLogger(__name__)

_SCHEME = "s3://"
_FORMAT = "elcrec_bucket"
_CONTENTS = "contents.json"
_ROW = "row"
_GROUP_ROWS, _FILE_GROUPS = 1 << 19, 64
_ATTEMPTS = 8
_ERRORS = (OSError, pa.ArrowException)


@contextmanager
def bucket_tables(spark: Any, address: str) -> Iterator["BucketTables"]:
    """Yield the tables of one session, in a folder of its own below `address`, which is empty again at the end.

    Args:
        spark: the session.
        address: `s3://BUCKET/FOLDER`.

    Raises:
        UserError: nothing can be written there.
        LostWorkError: the bucket fails later on.
    """
    folder = f"{address.removeprefix(_SCHEME).rstrip('/')}/elcrec-{uuid.uuid4().hex}"
    try:
        with _s3().open_output_stream(f"{folder}/begun") as begun:
            begun.write(b"")
    except _ERRORS as error:
        fix = "check the bucket, and the credentials, region and endpoint in AWS_…"
        raise UserError(f"cannot be written ({_short(error)})", where=address, fix=fix) from error
    try:
        spark.dataSource.register(_Bucket)
        yield BucketTables(spark, folder)
    finally:
        _empty(folder)


class BucketTables:
    """`Tables` in a bucket."""

    def __init__(self, spark: Any, folder: str) -> None:
        self._spark, self._folder = spark, folder
        self._schemas: dict[str, Any] = {}

    def scan(self, files: Sequence[Path]) -> Any:
        """See `Tables`. The files are copied into the bucket, as types that Spark has."""
        key = f"given-{uuid.uuid4().hex}"
        schema = _plain_schema(pq.read_schema(files[0]))
        with _bucket_faults(self._folder):
            _copy(files, schema, f"{self._folder}/{key}")
        numbered = schema.append(pa.field(_ROW, pa.int64(), nullable=False))
        return self._frame(key, from_arrow_schema(numbered, prefer_timestamp_ntz=False), numbered=True)

    def write(self, key: str, frame: Any) -> None:
        """See `Tables`."""
        frame.write.format(_FORMAT).option("folder", f"{self._folder}/{key}").mode("append").save()
        self._schemas[key] = frame.schema

    def read(self, key: str) -> Any:
        """See `Tables`."""
        return self._frame(key, self._schemas[key])

    def enter(self, key: str, table: pa.Table) -> Any:
        """See `Tables`."""
        with _bucket_faults(self._folder):
            file = _write_file(f"{self._folder}/{key}", "0.parquet", table.schema, _groups(iter(table.to_batches())))
            _note(f"{self._folder}/{key}", [file])
        return self._frame(key, from_arrow_schema(table.schema, prefer_timestamp_ntz=False))

    def batches(self, key: str) -> Iterator[pa.RecordBatch]:
        """See `Tables`."""
        folder = f"{self._folder}/{key}"
        with _bucket_faults(folder):
            contents = _contents(folder)
        for file in contents:
            for number in range(len(file.groups)):
                with _bucket_faults(folder), _open(folder, file.name) as parquet:
                    group = parquet.read_row_group(number)
                yield from group.to_batches(max_chunksize=ROWS_AT_ONCE)
            with _bucket_faults(folder):
                _s3().delete_file(f"{folder}/{file.name}")

    def remove(self, key: str) -> None:
        """See `Tables`."""
        _empty(f"{self._folder}/{key}")

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
        for file in _contents(self._folder):
            for number, rows in enumerate(file.groups):
                found.append(_Group(file.name, number, before))
                before += rows
        return found

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        if not isinstance(partition, _Group):  # what Spark makes of an empty table
            return
        # Spark asks for its own names of what is inside a list, and its own word on what may be null.
        schema, before = to_arrow_schema(self._schema, timezone="UTC"), partition.before
        with _open(self._folder, partition.file) as parquet:
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[partition.number]):
                yield (_numbered(batch, before) if self._numbered else batch).cast(schema)
                before += len(batch)


def _numbered(batch: pa.RecordBatch, before: int) -> pa.RecordBatch:
    return batch.append_column(_ROW, pa.array(np.arange(before, before + len(batch))))


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
        return _Written(partition, _write_file(self._folder, name, first.schema, chain([first], groups)))

    def commit(self, messages: Sequence[WriterCommitMessage | None]) -> None:
        written = {each.partition: each.file for each in messages if isinstance(each, _Written) and each.file}
        _note(self._folder, [written[partition] for partition in sorted(written)])


def _copy(files: Sequence[Path], schema: pa.Schema, folder: str) -> None:
    """Copy Parquet files of this machine to a table: S3 takes no file of more than 10,000 parts of 10 MiB."""
    contents = list[_File]()
    for file in files:
        with pq.ParquetFile(file) as parquet:
            batches = parquet.iter_batches(batch_size=ROWS_AT_ONCE)
            groups = _groups(batch.select(schema.names).cast(schema) for batch in batches)
            while some := list(islice(groups, 1)):
                name = f"{len(contents):06d}.parquet"
                contents.append(_write_file(folder, name, schema, chain(some, islice(groups, _FILE_GROUPS - 1))))
    _note(folder, contents)


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


def _write_file(folder: str, name: str, schema: pa.Schema, groups: Iterator[pa.Table]) -> _File:
    with pq.ParquetWriter(f"{folder}/{name}", schema, filesystem=_s3()) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))
    metadata = writer.writer.metadata
    return _File(name, tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)))


def _open(folder: str, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(f"{folder}/{name}", filesystem=_s3(), pre_buffer=True)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema of Parquet files as Spark takes it: wide types, and nanoseconds as a number, as from a folder."""
    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_unsigned_integer(kind) or (pa.types.is_timestamp(kind) and kind.unit == "ns"):
        return pa.int64()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_time(kind) or pa.types.is_date64(kind):
        return pa.string()
    return kind


def _note(folder: str, contents: Sequence[_File]) -> None:
    with _s3().open_output_stream(f"{folder}/{_CONTENTS}") as stream:
        stream.write(json.dumps(contents).encode())


def _contents(folder: str) -> list[_File]:
    """Return the files of a table, in the order of its rows."""
    with _s3().open_input_stream(f"{folder}/{_CONTENTS}") as stream:
        return [_File(name, tuple(groups)) for name, groups in json.loads(stream.read())]


def _empty(folder: str) -> None:
    try:
        _s3().delete_dir(folder)
    except FileNotFoundError:
        return
    except _ERRORS as error:
        logger.warning("%s%s: cannot be removed (%s); remove it yourself", _SCHEME, folder, _short(error))


@contextmanager
def _bucket_faults(folder: str) -> Iterator[None]:
    """Explain what the bucket raises; the session could write there, so another attempt may succeed."""
    try:
        yield
    except _ERRORS as error:
        raise LostWorkError(f"the bucket fails ({_short(error)})", where=_SCHEME + folder, fix="try again") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _s3() -> pyarrow.fs.FileSystem:
    """Return a client of the server, region and authority that boto3's variables name."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE")
    own, endpoint, region, default, authority = (os.environ.get(name) or None for name in names)
    return _client(own or endpoint, region or default, authority)


@cache
def _client(endpoint: str | None, region: str | None, authority: str | None) -> pyarrow.fs.FileSystem:
    options: dict[str, Any] = {"retry_strategy": pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)}
    if authority:
        options["tls_ca_file_path"] = authority
    if endpoint:  # a server of your own has buckets as folders, and asks for no region
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
        region = region or "us-east-1"
    return pyarrow.fs.S3FileSystem(region=region, **options)
