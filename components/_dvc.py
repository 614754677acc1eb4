"""One file of a DVC repository, at exactly one revision."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from elcrec.artifacts import md5_of
from elcrec.config import FetchConfig
from elcrec.errors import UserError

_COMMIT = re.compile("[0-9a-f]{40}")
_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class DvcFile:
    """A version of a file."""

    repository: str
    """Git address or path of the repository."""
    revision: str
    """The commit."""
    path: str
    """The file, relative to the repository's root."""
    md5: str
    """Checksum of its bytes."""

    def __post_init__(self) -> None:
        """Check that the revision determines the bytes, because it is the key of the pipeline's cache."""
        if not _COMMIT.fullmatch(self.revision) or not self.md5:
            fix = "name the commit and the md5 that component resolve returns"
            raise UserError(f"dvc_revision {self.revision!r} may move", where=self.repository, fix=fix)


def find_version(repository: str, revision: str, path: str, md5: str = "") -> DvcFile:
    """Return the present version of a file in a commit, branch or tag, from its `.dvc` file or `dvc.lock`.

    Raises:
        UserError: the repository, revision or file is missing, or DVC records an md5 other than the given one.
    """
    check_origin(repository=repository, revision=revision, path=path, md5=md5)
    where = f"{repository}@{revision}:{path}"
    with _open(repository, revision, where) as files:
        recorded, commit = _recorded_md5(files, path), str(files.repo.get_rev())
    _check("DVC records", recorded, md5 or recorded, where)
    return DvcFile(repository=repository, revision=commit, path=path, md5=recorded)


def pull(wanted: DvcFile, target: Path) -> None:
    """Copy the file's bytes to `target`.

    Raises:
        UserError: the repository, revision or file is missing, or the md5 of DVC's record or of the bytes differs.
    """
    where = f"{wanted.repository}@{wanted.revision}:{wanted.path}"
    with _open(wanted.repository, wanted.revision, where) as files:
        _check("DVC records", _recorded_md5(files, wanted.path), wanted.md5, where)
        files.get_file(wanted.path, str(target))
    _check("its bytes have", md5_of(target), wanted.md5, where)


def read_from(path: Path, origin: DvcFile, section: FetchConfig) -> FetchConfig:
    """Return `section` changed to read the pulled file at `path`, in the section's format for your own log."""
    file = msgspec.structs.replace(section.file, path=str(path), md5=origin.md5)
    return msgspec.structs.replace(section, dataset="file", file=file)


def check_origin(*, repository: str, revision: str, path: str, md5: str) -> None:
    """Check the parameters that name a file, as far as possible without its repository.

    Raises:
        UserError: they name a file without its repository or a repository without a file, or the md5 is invalid.
    """
    given = {"dvc_revision": revision, "dvc_path": path, "dvc_md5": md5}
    alone = next((name for name, value in given.items() if value), None)
    if not repository and alone:
        raise UserError(f"{alone} has no effect without dvc_repository", where="pipeline parameters", fix="give both")
    if repository and not (revision and path):
        raise UserError("dvc_repository needs dvc_revision and dvc_path", where=repository)
    if md5 and not _MD5.fullmatch(md5):
        raise UserError(
            f"{md5!r} is not an md5", where="parameter dvc_md5", fix="give the 32 hex digits in the .dvc file"
        )


def provenance_of(origin: DvcFile) -> dict[str, str]:
    """Return the file and version of the log, for `source.json` and the artifact."""
    return {
        "origin": origin.repository,
        "dvc_repository": origin.repository,
        "dvc_revision": origin.revision,
        "dvc_path": origin.path,
    }


@contextmanager
def _open(repository: str, revision: str, where: str) -> Iterator[Any]:
    """Yield the repository's files at a revision; turn DVC's errors into `UserError`."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        with closing(DVCFileSystem(repository, rev=revision)) as files:
            yield files
    except (DvcException, OSError) as error:
        raise UserError(f"DVC cannot get the file ({_reason(error)})", where=where) from error


def _recorded_md5(files: Any, path: str) -> str:
    return str(files.info(path).get("md5", ""))


def _check(who: str, found: str, wanted: str, where: str) -> None:
    if not _MD5.fullmatch(found):
        raise UserError("not a file that DVC tracks", where=where, fix="`dvc add` it and push")
    if found != wanted:
        fix = "correct dvc_revision or dvc_md5"
        raise UserError(f"{who} md5 {found}, wanted {wanted}", where=where, fix=fix)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"
