"""Checksums of a stage's output, which the next stage compares with the files that it reads.

A stage's folder has a `checksums.json`. It covers every file except pages and measurements, which no stage reads and
which differ between runs with the same inputs. So the same inputs give the same `checksums.json`. It protects against
accidents and careless edits, not against somebody who also writes new checksums.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from elcrec.artifacts import MEASURED, SCHEMA_VERSION, atomic_dir, read_document, sha256_of, write_json
from elcrec.errors import UserError
from elcrec.faults import explain
from elcrec.locks import held

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
_UNCOVERED = {CHECKSUMS, MEASURED}
_PAGE = ".html"


class Checksums(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `checksums.json`."""

    files: dict[str, str]
    """sha256 by file name."""
    rewriting: list[str] = []
    """Files that an erasure has begun to rewrite; normally empty."""
    schema_version: int = SCHEMA_VERSION


@contextmanager
def stage_output(out: Path, *, patience: float = 0) -> Iterator[Path]:
    """Yield a scratch folder beside `out`; on success, write its checksums and let it replace `out`.

    Args:
        out: the stage's output.
        patience: seconds to wait for another process that writes it.

    Raises:
        UserError: the folder of `out` cannot be written, or another process is writing it; also for a fault of the
            environment inside the block, such as a full disk.
    """
    place = out.absolute()
    try:
        with held(place.with_name(f".{place.name}.lock"), subject=out, patience=patience), atomic_dir(out) as scratch:
            yield scratch
            write_checksums(scratch)
    except UserError:
        raise
    except Exception as error:
        explained = explain(error, where=out)
        if explained is None:
            raise
        raise explained from error


def write_checksums(folder: Path) -> None:
    """Record the files of a folder, without subfolders, which have their own manifests."""
    covered = sorted(path for path in folder.iterdir() if path.is_file() and _is_covered(path.name))
    _write(folder, Checksums(files={path.name: sha256_of(path) for path in covered}))


def verify(folder: Path, *names: str, optional: Iterable[str] = ()) -> None:
    """Compare files with the checksums that their stage recorded.

    A folder of an earlier version without `checksums.json` is accepted as it is, and a log line says so.

    Args:
        folder: a stage's output.
        names: the files to be read.
        optional: files to be read that the stage does not always write.

    Raises:
        UserError: a file was changed, is missing, or was added later.
    """
    if not (folder / CHECKSUMS).is_file():
        if folder.is_dir():
            logger.info("%s: no %s, so it is read unverified", folder, CHECKSUMS)
        return
    recorded = _read(folder)
    if recorded.rewriting:
        what = f"{', '.join(recorded.rewriting)}: an erasure was interrupted"
        raise UserError(what, where=folder, fix="run the same `elcrec forget` again")
    for name in (*names, *optional):
        _compare(folder / name, recorded.files.get(name), required=name in names)


def announce_rewrite(path: Path) -> None:
    """Note in the folder's checksums, if it has any, that a file is about to be rewritten."""
    if (path.parent / CHECKSUMS).is_file():
        recorded = _read(path.parent)
        begun = sorted({*recorded.rewriting, path.name})
        _write(path.parent, msgspec.structs.replace(recorded, rewriting=begun))


def announced(folder: Path) -> list[Path]:
    """Return the files of a folder whose rewriting was announced, also those of a process that was killed since."""
    return [folder / name for name in _read(folder).rewriting] if (folder / CHECKSUMS).is_file() else []


def record_rewritten(folder: Path, names: Iterable[str]) -> None:
    """Update the checksums of rewritten files, if the folder has any, and clear the announcements."""
    if (folder / CHECKSUMS).is_file():
        files = _read(folder).files
        anew = {name: sha256_of(folder / name) for name in names if name in files}
        _write(folder, Checksums(files=files | anew))


def _is_covered(name: str) -> bool:
    return name not in _UNCOVERED and not name.endswith(_PAGE)


def _read(folder: Path) -> Checksums:
    return read_document(folder / CHECKSUMS, Checksums, name="a list of checksums", fix=_FIX)


_FIX = "restore it, or run the stage that writes it again"


def _write(folder: Path, recorded: Checksums) -> None:
    document = msgspec.to_builtins(recorded)
    head = {"schema_version": document.pop("schema_version"), "files": document.pop("files")}
    write_json(folder / CHECKSUMS, head | {name: value for name, value in document.items() if value})


def _compare(path: Path, recorded: str | None, *, required: bool) -> None:
    present = path.is_file()
    if recorded is None and present:
        raise UserError(f"not in {CHECKSUMS}: its stage did not write it", where=path, fix=_FIX)
    if recorded is None and not required:
        return
    if not present:
        raise UserError("no such file", where=path, fix="run the stage that writes it first")
    if _digest(path) != recorded:
        raise UserError("changed since its stage wrote it (sha256)", where=path, fix=_FIX)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"not readable ({error.strerror})", where=path) from error
