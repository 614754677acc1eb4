"""Files of exposures: a journal that grows while a server runs, and Parquet files that appear whole or not at all.

What was appended to a journal survives the death of its process. A server that ends turns its journal into a Parquet
file; the journal of one that was killed is turned into one by the next server, or by `elcrec exposures`.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
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
"""A row an answer. `user_key` is the salted hash of the user, null where the request named none; `user_id` is null
unless `serve.exposures.raw_users`; lists have an entry a position, best first; `propensities` is null where the rules
explore nothing; `intent` is null without one; `allowed` (null: all) and `denied` count the ids of the filters;
`arm` is null while no test runs."""

LATER_COLUMNS = ("arm",)
"""Columns that files of older servers lack; they count as null."""

_JOURNALS = ".*.arrows"
_LOCK = ".lock"
_BATCHES_AT_ONCE = 100


class Journal:
    """Exposures since the last Parquet file, an Arrow stream that only its own process appends to."""

    def __init__(self, folder: Path) -> None:
        """Begin a journal.

        Raises:
            OSError: the folder cannot be written.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._folder, self._path = folder, folder / f".{name}.arrows"
        draft = folder / f".{name}.draft"
        self._file = draft.open("xb", buffering=0)
        # Whoever looks for journals that a killed process left sees this one only once it is locked.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        draft.rename(self._path)
        self._stream = pa.ipc.new_stream(self._file, EXPOSURE_SCHEMA)
        self.rows = 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows; once this returns, only the death of the machine loses them."""
        self._stream.write_batch(batch)
        self.rows += len(batch)

    def seal(self) -> None:
        """Turn it into a Parquet file."""
        try:
            self._stream.close()
            if self._path.exists():
                _seal(self._path)
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Leave it to `seal_abandoned`."""
        self._file.close()


def seal_abandoned(folder: Path) -> int:
    """Turn the journals of processes that were killed into Parquet files; return how many."""
    sealed = 0
    for path in sorted(folder.glob(_JOURNALS)):
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
    """Take a user out of the files of a folder, and out of journals once they become files; return what has changed.

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
    """Make the folder and take in what a killed server left in it.

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
    """Write a journal as Parquet without those who were forgotten since; return the number of rows."""
    rows, batches = 0, _batches(path)
    with pq.ParquetWriter(scratch, EXPOSURE_SCHEMA, compression="zstd") as writer:
        while part := list(islice(batches, _BATCHES_AT_ONCE)):
            table = _with_later_columns(pa.Table.from_batches(part))
            gone = forgotten.rows(table["user_key"], table["time"])
            kept = table.filter(pa.array(np.logical_not(gone)))
            writer.write_table(kept)
            rows += len(kept)
    return rows


def _with_later_columns(table: pa.Table) -> pa.Table:
    """Return rows of an older server in the columns of today."""
    for name in LATER_COLUMNS:
        if name not in table.column_names:
            table = table.append_column(EXPOSURE_SCHEMA.field(name), pa.nulls(len(table), pa.string()))
    return table.select(EXPOSURE_SCHEMA.names)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the whole batches of a journal; a process that was killed may have left a part of one at its end."""
    with path.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
            while True:
                yield reader.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Keep files from appearing while the list of the forgotten changes."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
