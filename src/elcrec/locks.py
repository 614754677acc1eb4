"""Lock files: one holder at a time, and the file says who holds it.

The kernel holds the lock and releases it when the process ends, so a killed process blocks nobody.
"""

import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from elcrec.errors import UserError

logger = logging.getLogger(__name__)

_PAUSE = 0.1
_WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of file systems without locks."""


@contextmanager
def held(path: Path, *, subject: object, patience: float = 0) -> Iterator[None]:
    """Hold the lock file `path`, and remove it at the end.

    Args:
        path: the file; its folder is created.
        subject: the thing that is locked, for messages.
        patience: seconds to wait for another holder; `math.inf` waits without limit.

    Raises:
        UserError: another process still holds it, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _acquire(path, subject, time.monotonic() + patience)
    except OSError as error:
        raise UserError(f"cannot write the output ({error.strerror})", where=subject) from error
    try:
        _note_stale(file, subject)
        _sign(file)
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _acquire(path: Path, subject: object, until: float) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, subject, until)
        except BaseException:
            file.close()
            raise
        if _is_still(file, path):
            return file
        file.close()  # the previous holder removed it


def _lock(file: IO[str], subject: object, until: float) -> None:
    said = False
    while not _try(file, subject):
        holder = _describe(_read(file))
        if time.monotonic() >= until:
            fix = "wait until it has ended, or end it"
            raise UserError(f"in use by {holder}", where=subject, fix=fix)
        if not said:
            logger.info("%s: in use by %s; waiting until it has ended", subject, holder)
            said = True
        time.sleep(_PAUSE)


def _try(file: IO[str], subject: object) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        logger.warning("%s: this file system has no locks, so nothing keeps a second process out", subject)
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _note_stale(file: IO[str], subject: object) -> None:
    """Log that the previous holder was killed, if its name is still in the file."""
    before = _read(file)
    if before:
        logger.info("%s: the lock of %s is stale; that process has ended", subject, _describe(before))


def _sign(file: IO[str]) -> None:
    holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    file.truncate(0)
    file.write(json.dumps(holder))
    file.flush()


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(holder.get("since")))
    except (ValueError, TypeError):
        age = timedelta(0)
    minutes = max(0, round(age.total_seconds() / 60))
    return f"process {holder.get('pid')} on {holder.get('host')}, for {minutes} min"
