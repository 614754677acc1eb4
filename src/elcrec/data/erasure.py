"""Erasure of one user from files: Parquet, CSV, JSON lines, the benchmark layout, and their descriptions."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import atomic_file, md5_of, read_json, write_json
from elcrec.config import CsvConfig
from elcrec.custody import CHECKSUMS, announce_rewrite, announced, record_rewritten
from elcrec.data.id_hashes import id_code
from elcrec.data.ids import normal_id, normal_ids
from elcrec.data.json_lines import JsonRows, read_lines
from elcrec.data.sessions import user_of
from elcrec.data.text import AS_FOUND, TextLayout, split_rows, write_rows
from elcrec.errors import UserError

_ROWS_AT_ONCE = 65_536


def erase_user(folder: Path, user_id: str, columns: tuple[str, ...], text: CsvConfig = AS_FOUND) -> dict[Path, int]:
    """Rewrite every file below `folder` that holds rows of a user; return the number of rows removed by file.

    A page that may show some of the rows is removed. Documents that describe a changed file are updated.

    Args:
        folder: a work folder of the stages.
        user_id: the raw id.
        columns: possible names of the column of users.
        text: the layout of logs in CSV.

    Raises:
        UserError: a file cannot be read or written.
    """
    files = sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
    changed = dict.fromkeys((path for each in files if each.name == CHECKSUMS for path in announced(each.parent)), 0)
    for path in files:
        try:
            lost = _erase(path, user_id, columns, text)
        except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"cannot be rewritten ({error})", where=path, fix="remove it, or repair it") from error
        if lost:
            changed[path] = lost
    for place in {path.parent for path in changed}:
        names = {path.name for path in changed if path.parent == place}
        record_rewritten(place, names | {document for name in names for document in _describe_anew(place / name)})
    return changed


@contextmanager
def _rewritten(path: Path) -> Iterator[Path]:
    """Yield a scratch file that replaces `path`; the folder's checksums show if the process was killed meanwhile."""
    announce_rewrite(path)
    with atomic_file(path) as scratch:
        yield scratch


def erase_from_parquet(path: Path, user_id: str, columns: tuple[str, ...] = ("user_id",)) -> int:
    """Rewrite a Parquet file without a user's rows; return the number of removed rows."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        column = next((name for name in columns if name in schema.names), None)
        if column is None or not any(_held(batch, user_id, column) for batch in file.iter_batches(columns=[column])):
            return 0
        lost = 0
        with _rewritten(path) as scratch, pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                own = _own_rows(batch, user_id, column)
                lost += int(own.sum())
                writer.write_batch(batch.filter(pa.array(~own)))
    return lost


def _erase(path: Path, user_id: str, columns: tuple[str, ...], text: CsvConfig) -> int:
    if path.suffix == ".parquet":
        return erase_from_parquet(path, user_id, columns)
    if path.suffix == ".csv":
        return _erase_from_csv(path, user_id, columns, text)
    if path.suffix == ".jsonl":
        return _erase_from_json_lines(path, user_id, columns)
    if path.name == "profile.json":
        return _erase_from_profile(path, user_id)
    source = path.with_name("source.json")
    if path.suffix == ".txt" and source.exists() and read_json(source).get("format") == "benchmark":
        return _erase_line(path, user_id)
    return 0


def _held(batch: pa.RecordBatch, user_id: str, column: str) -> bool:
    return bool(_own_rows(batch, user_id, column).any())


def _own_rows(batch: pa.RecordBatch, user_id: str, column: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    ids = user_of(batch[column].cast(pa.string()))
    same = pc.or_kleene(pc.equal(ids, user_id), pc.equal(normal_ids(pa.chunked_array([ids])), normal_id(user_id)))
    return np.asarray(pc.fill_null(same, fill_value=False).to_numpy(zero_copy_only=False), bool)


def _names(values: list[str], user_id: str) -> bool:
    """Return whether a field, if the row has it, is the user's id in any spelling."""
    return any(value == user_id or normal_id(value) == normal_id(user_id) for value in values)


def _erase_from_csv(path: Path, user_id: str, columns: tuple[str, ...], text: CsvConfig) -> int:
    layout = _layout_of(path, columns, text)
    place = next((layout.names.index(name) for name in columns if name in layout.names), None)
    if place is None:
        return 0
    if layout.packing:
        fix = "unpack it, then forget again"
        raise UserError(f"packed with {layout.packing}, so no user can be erased from it", where=path, fix=fix)
    with path.open(encoding=_read_as(layout), newline="") as lines:
        rows = split_rows(lines, layout.delimiter, layout.quote, layout.escape)
        lost = sum(_names(row[place : place + 1], user_id) for row in rows)
    if lost:
        with (
            path.open(encoding=_read_as(layout), newline="") as lines,
            _rewritten(path) as scratch,
            scratch.open("w", encoding=layout.encoding, newline="") as out,
        ):
            rows = split_rows(lines, layout.delimiter, layout.quote, layout.escape)
            write_rows(out, (row for row in rows if not _names(row[place : place + 1], user_id)), layout)
    return lost


def _layout_of(path: Path, columns: tuple[str, ...], text: CsvConfig) -> TextLayout:
    """Return a file's layout: that of the parameters for a raw log; other files have a header and are detected."""
    raw = path.with_name("source.json").exists()
    layout = TextLayout.found(path, text if raw else AS_FOUND)
    return layout if set(columns) & set(layout.names) or raw else TextLayout.found(path, text)


def _read_as(layout: TextLayout) -> str:
    return "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding


def _erase_from_json_lines(path: Path, user_id: str, columns: tuple[str, ...]) -> int:
    def own(lines: list[bytes]) -> npt.NDArray[np.bool_]:
        table, torn = JsonRows(columns).read(lines)
        found = np.zeros(len(lines), bool)
        held = [
            np.asarray(pc.fill_null(pc.equal(normal_ids(column), normal_id(user_id)), fill_value=False))
            for column in table.columns
        ]
        found[np.setdiff1d(np.arange(len(lines)), torn)] = np.logical_or.reduce(held)
        return found

    if not any(own(lines).any() for lines in read_lines(path)):
        return 0
    lost = 0
    with _rewritten(path) as scratch, scratch.open("wb") as out:
        for lines in read_lines(path):
            theirs = own(lines)
            lost += int(theirs.sum())
            out.writelines(line + b"\n" for line, erased in zip(lines, theirs, strict=True) if not erased)
    return lost


def _erase_from_profile(path: Path, user_id: str) -> int:
    """Remove a user's hash from the profile of the last accepted log."""
    document, code = read_json(path), id_code(normal_id(user_id))
    logs = [log for log in (document.get("profile"), document.get("previous")) if log and code in _known_users(log)]
    for log in logs:
        _known_users(log).remove(code)
    if logs:
        write_json(path, document)
    return len(logs)


def _known_users(profile: dict[str, Any]) -> list[str]:
    users: list[str] = profile.get("known", [[]])[0]
    return users


def _erase_line(path: Path, user_id: str) -> int:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    kept = [line for line in lines if not _names(line.split(None, 1)[:1], user_id)]
    if len(kept) < len(lines):
        with _rewritten(path) as scratch:
            scratch.write_text("\n".join(kept), encoding="utf-8")
    return len(lines) - len(kept)


def _describe_anew(path: Path) -> list[str]:
    """Update the documents that describe a changed file; return their names."""
    folder, documents = path.parent, []
    if path.name == "quarantine.parquet":  # the page of this stage shows some of the rows
        (folder / "validation.json").with_suffix(".html").unlink(missing_ok=True)
    for name, file in _documents(folder):
        if file == path.name:
            document = read_json(folder / name)
            write_json(folder / name, document | _numbers(path, document) | {"md5": md5_of(path)})
            documents.append(name)
    return documents


def _documents(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the documents of a folder that hold a file's md5, each with the file."""
    if (folder / "split.json").exists():
        yield "split.json", "sequences.parquet"
    if (folder / "source.json").exists():
        yield "source.json", str(read_json(folder / "source.json").get("file"))


def _numbers(path: Path, document: dict[str, object]) -> dict[str, int]:
    """Return the counts of a split that the removal of a user changes."""
    if "num_users" not in document:
        return {}
    table = pq.read_table(path, columns=["items", "train_end", "valid_index", "test_index"])
    return {
        "num_users": len(table),
        "num_interactions": pc.sum(pc.list_value_length(table["items"])).as_py() or 0,
        "num_train_interactions": pc.sum(table["train_end"]).as_py() or 0,
        "num_valid_targets": int((table["valid_index"].to_numpy() >= 0).sum()),
        "num_test_targets": int((table["test_index"].to_numpy() >= 0).sum()),
    }
