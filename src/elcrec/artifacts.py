"""Files and folders that are written atomically, and their checksums."""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

from elcrec.errors import UserError

SCHEMA_VERSION = 1
MEASURED = "measured.json"
"""File of a stage's measurements of its own run, such as seconds; in no digest, because they differ between runs."""
FORGOTTEN_FILE = "forgotten.json"
"""The list of forgotten users, in a store folder."""
_BLOCK = 1 << 20

T = TypeVar("T")


@contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """Yield a scratch folder beside `out`; on success it replaces `out`, on any error it is removed.

    Raises:
        UserError: the folder of `out` cannot be written.
    """
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        scratch = _scratch_beside(out)
    except OSError as error:
        raise UserError(f"cannot write the output ({error.strerror})", where=out) from error
    try:
        yield scratch
        _share_by_umask(scratch, *scratch.rglob("*"))
        _replace_dir(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_beside(out: Path) -> Path:
    scratch = out.with_name(f".{out.name}.{uuid4().hex[:8]}.partial")
    scratch.mkdir()
    return scratch


def _share_by_umask(*paths: Path) -> None:
    """Give files the permissions of the umask; some libraries make their files readable only to the owner."""
    kept = ~_umask()
    for path in paths:
        mode, wanted = path.stat().st_mode, (0o777 if path.is_dir() else 0o666) & kept
        if mode & 0o777 != wanted:
            path.chmod(mode & 0o7000 | wanted)


def _umask() -> int:
    """Return the umask, if possible without setting it, because other threads may be creating files."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    told = next((line.split()[1] for line in lines if line.startswith("Umask:")), None)
    if told is not None:
        return int(told, 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _remove_stale(out: Path) -> None:
    """Remove leftovers of a killed run for the same output; put back what it had moved away but not replaced."""
    for leftover in _partial(out):
        if not out.exists() and (leftover / "old").is_dir():
            (leftover / "old").rename(out)
        shutil.rmtree(leftover, ignore_errors=True)


def _partial(path: Path) -> Iterator[Path]:
    """Yield the unfinished files or folders that were meant to become `path`."""
    return path.parent.glob(f".{glob.escape(path.name)}.*.partial")


def _replace_dir(scratch: Path, out: Path) -> None:
    if out.exists():
        retired = _scratch_beside(out)
        out.rename(retired / "old")
        scratch.rename(out)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        scratch.rename(out)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`; on success it is renamed to `path`.

    The temporary name is unique to the caller: two threads of a process may write the same file, and the last one wins.
    Leftovers of killed processes are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary, lock = _locked_beside(path)
    try:
        yield temporary
        _share_by_umask(temporary)
        temporary.replace(path)
    finally:
        _remove_with_journals(temporary)
        lock.close()


def _locked_beside(path: Path) -> tuple[Path, BinaryIO]:
    """Return an empty file and its lock, which shows others that it is in use until this process ends."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
        lock = temporary.open("wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if temporary.exists():
            return temporary, lock
        lock.close()  # another process removed it as abandoned before it was locked


def _remove_abandoned(path: Path) -> None:
    for leftover in _partial(path):
        with suppress(OSError), leftover.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_with_journals(leftover)


def _remove_with_journals(path: Path) -> None:
    """Remove a file, and the journals of SQLite beside it if it is a database."""
    for beside in path.parent.glob(f"{glob.escape(path.name)}-*"):
        beside.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def require_parquet_name(path: Path) -> None:
    """Check that a Parquet output is named so, because `elcrec forget` and readers go by the name.

    Raises:
        UserError: the name has another suffix.
    """
    if path.suffix != ".parquet":
        raise UserError("the output is Parquet", where=path, fix=f"name it {path.stem}.parquet")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` atomically, indented, with keys in their order and a final newline."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_document(path: Path, kind: type[T], *, name: str, fix: str) -> T:
    """Read a JSON document that this project wrote.

    The version is checked before the fields: those of another version need not mean what they mean here. A field that
    the struct lacks is skipped, or refused where the struct forbids unknown fields.

    Args:
        path: the file.
        kind: the struct that it fills.
        name: what it should be, for the error, such as "a bundle's manifest".
        fix: how one comes by a sound one.

    Raises:
        UserError: the file is missing, torn, of another schema version, or something else.
    """
    import msgspec  # noqa: PLC0415 - `elcrec --help` needs none

    document = read_json(path, fix=fix)
    version = document.get("schema_version")
    if version is None:
        raise UserError(f"not {name} (it says no schema version)", where=path, fix=fix)
    if version != SCHEMA_VERSION:
        what = f"schema version {version} of another release, this program reads {SCHEMA_VERSION}"
        raise UserError(what, where=path, fix=fix)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"not {name} ({error})", where=path, fix=fix) from error


def require_folder(folder: Path, *, fix: str) -> None:
    """Refuse a folder that is not there; `fix` is how one comes by it.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError("no such folder", where=folder, fix=fix)


def read_json(path: Path, *, fix: str | None = None) -> dict[str, Any]:
    """Read a JSON object; `fix` is how one comes by a sound one.

    Raises:
        UserError: the file is missing, not JSON, or not an object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix=fix or "run the stage that writes it first") from error
    except (ValueError, OSError) as error:
        raise UserError(f"not readable as JSON ({error})", where=path, fix=fix) from error
    if not isinstance(document, dict):
        raise UserError("expected a JSON object", where=path, fix=fix)
    return document


def file_version(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever a file is written or replaced; `None` if there is none.

    The number of a file is not enough: a new file may have that of a removed one.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def md5_of(path: Path) -> str:
    """Return the md5 of the file's bytes, the checksum DVC uses, in hex."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def sha256_of(path: Path) -> str:
    """Return the sha256 of the file's bytes in hex."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def code_revision() -> str | None:
    """Return the commit of this code: the one recorded in the image, else that of the checkout.

    `None` if the package was installed from neither.
    """
    recorded = os.environ.get("ELCREC_GIT_REVISION")
    if recorded:
        return recorded
    here = Path(__file__)
    tracked = _git("ls-files", "--error-unmatch", here.name, folder=here.parent)
    return _git("rev-parse", "HEAD", folder=here.parent) if tracked else None


def _git(*arguments: str, folder: Path) -> str | None:
    command = ["git", *arguments]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
