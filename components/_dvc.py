"""One file of a DVC repository, exactly as a revision holds it."""

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from elcrec.artifacts import md5_of
from elcrec.config import FetchConfig
from elcrec.errors import UserError

_COMMIT = re.compile("[0-9a-f]{40}")
_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class DvcFile:
    """The name of a version of a file."""

    repository: str
    """Git address or path of the repository."""
    revision: str
    """A commit, branch or tag; after `pull` always the commit."""
    path: str
    """The file, relative to the repository's root."""
    md5: str
    """Checksum of its bytes; empty only where `revision` is a full commit."""

    def __post_init__(self) -> None:
        """Check that the name fixes the bytes, as the pipeline's cache goes by it."""
        if not self.revision or not self.path:
            raise UserError("dvc_repository needs dvc_revision and dvc_path", where=self.repository)
        if not self.md5 and not _COMMIT.fullmatch(self.revision):
            fix = "give dvc_md5 too (it stands in the .dvc file), or a full commit"
            raise UserError(f"dvc_revision {self.revision!r} may move", where=self.repository, fix=fix)


def pull(wanted: DvcFile, target: Path) -> DvcFile:
    """Copy the file's bytes to `target`; return its name with the commit and md5 resolved.

    Raises:
        UserError: the repository, revision or file is missing, or DVC's record or the bytes have another md5.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    where = f"{wanted.repository}@{wanted.revision}:{wanted.path}"
    try:
        with closing(DVCFileSystem(wanted.repository, rev=wanted.revision)) as files:
            recorded = files.info(wanted.path).get("md5", "")
            _check("DVC records", recorded, wanted.md5 or recorded, where)
            files.get_file(wanted.path, str(target))
            commit = str(files.repo.get_rev())
    except (DvcException, OSError) as error:
        raise UserError(f"DVC cannot bring the file ({_reason(error)})", where=where) from error
    _check("its bytes have", md5_of(target), recorded, where)
    return DvcFile(repository=wanted.repository, revision=commit, path=wanted.path, md5=recorded)


def read_from(path: Path, origin: DvcFile, section: FetchConfig) -> FetchConfig:
    """Return `section` made to read the pulled file at `path`, in the format it names for your own log."""
    file = msgspec.structs.replace(section.file, path=str(path), md5=origin.md5)
    return msgspec.structs.replace(section, dataset="file", file=file)


def check_origin(*, repository: str, revision: str, path: str, md5: str) -> None:
    """Check the parameters that name a file, as far as that can be done without its repository.

    Raises:
        UserError: they name a file without its repository, a repository without a file, or the md5 is none.
    """
    given = {"dvc_revision": revision, "dvc_path": path, "dvc_md5": md5}
    alone = next((name for name, value in given.items() if value), None)
    if not repository and alone:
        raise UserError(f"{alone} says nothing without dvc_repository", where="pipeline parameters", fix="give both")
    if repository and not (revision and path):
        raise UserError("dvc_repository needs dvc_revision and dvc_path", where=repository)
    if md5 and not _MD5.fullmatch(md5):
        raise UserError(f"{md5!r} is no md5", where="parameter dvc_md5", fix="give the 32 hex digits in the .dvc file")


def lineage_of(origin: DvcFile) -> dict[str, str]:
    """Return which version of which file the log is, for `source.json` and the artifact."""
    return {
        "origin": origin.repository,
        "dvc_repository": origin.repository,
        "dvc_revision": origin.revision,
        "dvc_path": origin.path,
    }


def _check(who: str, found: str, wanted: str, where: str) -> None:
    if not _MD5.fullmatch(found):
        raise UserError("not a file that DVC tracks", where=where, fix="`dvc add` it and push")
    if found != wanted:
        fix = "correct dvc_revision or dvc_md5"
        raise UserError(f"{who} md5 {found}, wanted {wanted}", where=where, fix=fix)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"
