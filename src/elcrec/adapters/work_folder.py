"""The work folder of an engine: removed at the end, and after a kill by the next run."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elcrec.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def work_folder(spill: str | None, out: Path) -> Iterator[Path]:
    """Yield an empty folder for the stage that writes `out`; leftovers of a killed run are removed first.

    Args:
        spill: the parent folder; `None` for that of `out`.
        out: the output, whose path determines the name of the folder.

    Raises:
        UserError: it cannot be created, or a disk is full.
    """
    folder = _place(spill, out.absolute())
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=folder, fix="set engine.spill") from error
    try:
        yield folder
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(folder, os.strerror(error.errno)) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def disk_full(folder: Path, reason: str) -> UserError:
    """Return the error for a full disk."""
    fix = "free some space, or set engine.spill to a folder on a larger disk"
    return UserError(f"the disk is full ({reason})", where=folder, fix=fix)


def _place(spill: str | None, out: Path) -> Path:
    if spill is None:
        return out.with_name(f".{out.name}.spill.partial")
    digest = hashlib.sha256(str(out).encode()).hexdigest()[:12]
    return Path(spill).absolute() / f"elcrec-{out.name}-{digest}.partial"
