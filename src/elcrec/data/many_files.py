"""A log in many files, from a folder written by Spark or a pattern of names, joined into one file."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from elcrec.config import LogFormat
from elcrec.data.text import open_bytes
from elcrec.errors import UserError

_BLOCK_BYTES = 1 << 20
_PATTERN = frozenset("*?[")
_HIDDEN = ("_", ".")


def parts_of(path: str) -> list[Path]:
    """Return the files that a path names, sorted by name; for a single file, the file itself.

    Files whose name, or whose folder's name, begins with `_` or a dot are ignored, as they are marks of the writer.

    Raises:
        UserError: there are none.
    """
    named = Path(path).expanduser()
    if named.is_dir():
        found = _files(named.rglob("*"), named)
    elif _PATTERN & set(path) and not named.exists():
        root = Path(named.anchor)
        pattern = str(named.relative_to(root))
        matches = list(root.glob(pattern))
        found = [file for each in matches for file in (_files(each.rglob("*"), each) if each.is_dir() else [each])]
    else:
        return [named]
    if not found:
        raise UserError("there is no file", where=path, fix="set fetch.file.path to a file, a folder or a pattern")
    return sorted(found)


def _files(paths: Iterable[Path], root: Path) -> list[Path]:
    return [
        path
        for path in paths
        if path.is_file() and not any(part.startswith(_HIDDEN) for part in path.relative_to(root).parts)
    ]


def root_of(path: str) -> Path:
    """Return the folder whose subfolders may hold columns (`dt=2024-03-01`)."""
    named = Path(path).expanduser()
    fixed = takewhile(lambda part: not _PATTERN & set(part), named.parts)
    return named if named.is_dir() else Path(*fixed)


def join_parts(parts: Sequence[Path], layout: LogFormat, target: Path, *, root: Path) -> None:
    """Write the rows of several files into one, block by block; names of folders may hold columns (`dt=…`).

    Args:
        parts: the files.
        layout: the layout of all of them.
        target: the file to write.
        root: the folder whose subfolders may hold columns.

    Raises:
        UserError: files differ in their columns, or cannot be read.
    """
    try:
        if layout == "parquet":
            _join_tables(parts, target, root)
        else:
            _join_texts(parts, target, header=layout == "csv" and _have_header(parts))
    except (OSError, pa.ArrowException) as error:
        fix = "every file of a log must have the same columns"
        raise UserError(f"the files cannot be joined ({str(error)[:200]})", where=root, fix=fix) from error


def _join_tables(parts: Sequence[Path], target: Path, root: Path) -> None:
    hive = pyarrow.dataset.partitioning(flavor="hive")
    files = pyarrow.dataset.dataset(
        [str(part) for part in parts], format="parquet", partitioning=hive, partition_base_dir=str(root)
    )
    with pq.ParquetWriter(target, files.schema, compression="zstd") as writer:
        for part in files.to_batches(batch_readahead=1, fragment_readahead=1):
            writer.write_batch(part)


def _join_texts(parts: Sequence[Path], target: Path, *, header: bool) -> None:
    with target.open("wb") as out:
        for number, part in enumerate(parts):
            with open_bytes(part) as file:
                line, rest = _first_line(file)
                out.write(rest if header and number else line + rest)
                if not _copy(file, out, rest or line):
                    out.write(b"\n")


def _have_header(parts: Sequence[Path]) -> bool:
    """Return whether all files begin with the same header line."""
    lines = []
    for part in parts:
        with open_bytes(part) as file:
            lines.append(_first_line(file)[0].rstrip(b"\r\n"))
    different = next((part for part, line in zip(parts, lines, strict=True) if line not in (lines[0], b"")), None)
    if different is None:
        return True
    if lines.count(lines[0]) > 1 or not any(character in b"0123456789" for character in lines[0]):
        fix = "all files must begin with the same names of columns, or none"
        raise UserError(f"its first line differs from that of {parts[0]}", where=different, fix=fix)
    return False


def _first_line(file: pa.NativeFile) -> tuple[bytes, bytes]:
    block = bytes(file.read(_BLOCK_BYTES))
    line, newline, rest = block.partition(b"\n")
    return line + newline, rest


def _copy(file: pa.NativeFile, out: BinaryIO, last: bytes) -> bool:
    """Copy the rest of a file; return whether it ends with a line end."""
    while block := bytes(file.read(_BLOCK_BYTES)):
        out.write(block)
        last = block
    return not last or last.endswith(b"\n")
