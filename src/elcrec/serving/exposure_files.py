"""Files of exposures: a journal that grows while a server runs, and Parquet files that are written atomically.

The rows of a journal survive if its process is killed. A server that ends turns its journal into a Parquet file. The
journal of a killed server is turned into one by the next server, or by `elcrec exposures`.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from elcrec.artifacts import FORGOTTEN_FILE
from elcrec.data.erasure import erase_user
from elcrec.data.forgotten import Forgotten
from elcrec.errors import UserError

EXPOSURE_SCHEMA = pa.schema(
    [
        pa.field("answer_id", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC")),
        pa.field("user_key", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("item_ids", pa.list_(pa.string())),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("propensities", pa.list_(pa.float64())),
        pa.field("intent", pa.int32()),
        pa.field("policy", pa.string()),
        pa.field("known", pa.int32()),
        pa.field("history_source", pa.string()),
        pa.field("k", pa.int32()),
        pa.field("allowed", pa.int32()),
        pa.field("denied", pa.int32()),
        pa.field("model", pa.string()),
        pa.field("version", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("arm", pa.string()),
    ]
)
"""One row per answer. `user_key` is the salted hash of the user, null if the request named none; `user_id` is null
unless `serve.exposures.raw_users` is set; lists have one entry per position, best first; `propensities` is null if the
rules do not explore; `intent` is null if there is none; `allowed` (null: all) and `denied` count the ids of the
filters; `arm` is null while no test runs."""

LATER_COLUMNS = ("arm",)
"""Columns that files of older servers lack; they count as null."""

_LINES, _EARLIER = ".journal", ".arrows"
"""Suffixes of journals; those of earlier versions are Arrow streams."""
_LOCK = ".lock"
_BATCHES_AT_ONCE = 100
_BLOCK_BYTES = 1 << 23
"""Bytes that are parsed at a time; every line is much shorter."""
_TAIL_BYTES = 1 << 16


class Journal:
    """Exposures since the last Parquet file, one line of JSON each; only its own process appends to it."""

    def __init__(self, folder: Path) -> None:
        """Begin a journal.

        Raises:
            OSError: the folder cannot be written.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._folder, self._path = folder, folder / f".{name}{_LINES}"
        draft = folder / f".{name}.draft"
        self._file = draft.open("xb", buffering=0)
        # A search for journals of killed processes must find this one only after it is locked.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path)
        self.rows = 0

    def append(self, lines: Sequence[bytes]) -> None:
        """Add rows as JSON; once this returns, only a crash of the machine can lose them."""
        left = memoryview(b"\n".join([*lines, b""]))
        while left:
            left = left[self._file.write(left) :]
        self.rows += len(lines)

    def seal(self) -> None:
        """Turn the journal into a Parquet file."""
        try:
            if self._path.exists():
                _seal(self._path)
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Leave the journal to `seal_abandoned`."""
        self._file.close()


def seal_abandoned(folder: Path) -> int:
    """Turn the journals of processes that were killed into Parquet files; return how many."""
    sealed = 0
    for path in sorted(found for end in (_LINES, _EARLIER) for found in folder.glob(f".*{end}")):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if path.exists():
                _seal(path)
                sealed += 1
    return sealed


def erase_exposures(folder: Path, user_key: str) -> list[Path]:
    """Remove a user from the files of a folder, and from journals when they become files; return the changed files.

    Raises:
        UserError: a file cannot be rewritten.
    """
    if not folder.is_dir():
        return []
    with _locked(folder, fcntl.LOCK_EX):
        path = folder / FORGOTTEN_FILE
        Forgotten.load(path).adding(user_key, datetime.now(UTC)).write(path)
    seal_abandoned(folder)
    return list(erase_user(folder, user_key, ("user_key",)))


def prepare(folder: Path) -> None:
    """Create the folder, and turn journals of killed servers into files.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        seal_abandoned(folder)
    except OSError as error:
        what = f"exposures cannot be written ({error.strerror})"
        raise UserError(what, where=folder, fix="name another folder in serve.exposures.folder") from error


def _seal(path: Path) -> None:
    out = path.with_name(f"{path.stem.removeprefix('.')}.parquet")
    with _locked(path.parent, fcntl.LOCK_SH):
        forgotten = Forgotten.load(path.parent / FORGOTTEN_FILE)
        scratch = out.with_name(f".{out.name}.partial")
        try:
            if _copy(path, scratch, forgotten):
                scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
        path.unlink()


def _copy(path: Path, scratch: Path, forgotten: Forgotten) -> int:
    """Write a journal as Parquet without the users who were forgotten since; return the number of rows."""
    rows = 0
    with pq.ParquetWriter(scratch, EXPOSURE_SCHEMA, compression="zstd") as writer:
        for table in _tables(path):
            gone = forgotten.rows(table["user_key"], table["time"])
            kept = table.filter(pa.array(np.logical_not(gone)))
            writer.write_table(kept)
            rows += len(kept)
    return rows


def _with_later_columns(table: pa.Table) -> pa.Table:
    """Add the columns that rows of an older server lack."""
    for name in LATER_COLUMNS:
        if name not in table.column_names:
            table = table.append_column(EXPOSURE_SCHEMA.field(name), pa.nulls(len(table), pa.string()))
    return table.select(EXPOSURE_SCHEMA.names)


def _tables(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a journal, some thousands at a time; the torn last line of a killed process is skipped."""
    if path.suffix == _EARLIER:
        batches = _streamed(path)
        while part := list(islice(batches, _BATCHES_AT_ONCE)):
            yield _with_later_columns(pa.Table.from_batches(part))
        return
    _cut_torn_line(path)
    numbers = EXPOSURE_SCHEMA.set(EXPOSURE_SCHEMA.get_field_index("time"), pa.field("time", pa.int64()))
    reading = pj.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    parsing = pj.ParseOptions(explicit_schema=numbers, unexpected_field_behavior="ignore")
    try:
        for batch in pj.open_json(path, reading, parsing):
            yield pa.Table.from_batches([batch]).cast(EXPOSURE_SCHEMA)
    except pa.ArrowInvalid:
        return  # nothing was written, or a power failure left something unreadable


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last complete line."""
    with path.open("rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            whole = file.read(end - start).rfind(b"\n") + 1
            if whole:
                end = start + whole
                break
            end = start
        if end < size:
            file.truncate(end)


def _streamed(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the complete batches of a journal of an earlier version, whose process may have been killed."""
    with path.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                yield reader.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Prevent new files while the list of forgotten users changes."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
