"""Faults of the environment that any library may meet: full disks, missing permissions, damaged databases."""

import errno
import os
import re
from collections.abc import Iterator

from elcrec.errors import UserError

_ROOM = "free some space and run the same command again"
_FIXES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "give this user the permission, or name another folder",
    errno.EPERM: "give this user the permission, or name another folder",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files",
    errno.ENOMEM: "give the process more memory",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
}
"""Advice for errors of the operating system that are not faults of the code."""

_DATABASE = "restore the store from a backup, or name another --store"
_SAID = {
    "database or disk is full": _ROOM,
    "attempt to write a readonly database": "name a store that can be written",
    "unable to open database file": "name a store that can be read and written",
    "file is not a database": _DATABASE,
    "database disk image is malformed": _DATABASE,
    "disk I/O error": _ROOM,
    "can't start new thread": "allow more address space (ulimit -v) or more processes (ulimit -u)",
}
"""Advice for error messages of SQLite and Python that have no error number."""
_TEXTS = {os.strerror(number): number for number in _FIXES} | {"os error 28": errno.ENOSPC}
_FILE = re.compile(r"'(/[^']+)'")


def explain(error: BaseException, *, where: object = None) -> UserError | None:
    """Return a message for an error that comes from the environment, `None` for any other error.

    Libraries wrap such errors, some only as text, so causes and texts are searched.

    Args:
        error: the error that was raised.
        where: the file or folder being written, for errors that do not name it.
    """
    for each in _chain(error):
        found = _explain_one(each, where)
        if found is not None:
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = set[int]()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _explain_one(error: BaseException, where: object) -> UserError | None:
    if isinstance(error, MemoryError):
        return UserError("out of memory", where=where, fix=_FIXES[errno.ENOMEM])
    if isinstance(error, OSError) and error.errno in _FIXES:
        return UserError(os.strerror(error.errno), where=error.filename or where, fix=_FIXES[error.errno])
    text = str(error)
    place = _FILE.search(text)
    where = place[1] if place else where
    for words, number in _TEXTS.items():
        if words in text:
            return UserError(os.strerror(number), where=where, fix=_FIXES[number])
    return next((UserError(words, where=where, fix=fix) for words, fix in _SAID.items() if words in text), None)
