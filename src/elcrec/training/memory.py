"""Memory that was freed, given back to the system."""

import ctypes
from functools import cache
from typing import Any


@cache
def _malloc_trim() -> Any:
    """Return the function of glibc; `None` on a system with another allocator."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_freed() -> None:
    """Return freed memory to the system.

    Every step's arrays differ a little in size, so that glibc leaves ever more gaps between them: a megabyte a step
    with 100,000 items.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
