"""Limits of memory and processors for this process."""

import os
import resource
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Version 1 of control groups shows "no limit" as a number near 2^63."""


def memory_limit(groups: Path = _CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes that this process may use: the smallest limit of its control groups, or the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(groups, own)])


def granted_mb(asked: int | None, share: float) -> int:
    """Return the given megabytes, or else the given share of this process's limit."""
    return asked or int(memory_limit() * share) // 1_000_000


def address_space_left() -> int | None:
    """Return the bytes of address space left for this process; `None` without a limit (`ulimit -v`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return max(0, limit - pages * resource.getpagesize())


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _limits(groups: Path, own: Path) -> list[int]:
    """Return the limits of this process's control group and its parents, in version 2 or 1 of the interface."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = []
    for line in [*lines, "0::/"]:
        _, controllers, path = line.split(":", 2)
        root = groups / "memory" if "memory" in controllers.split(",") else groups
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            found += [limit for name in ("memory.max", "memory.limit_in_bytes") if (limit := _read(place / name))]
            if place == root:
                break
    return found


def _read(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
