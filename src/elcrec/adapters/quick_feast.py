"""Feast without its run-time type checks, which take half of the time that its import does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typeguard

from elcrec.adapters.quiet import quiet


@contextmanager
def quick_feast() -> Iterator[None]:
    """Import Feast inside: quietly, and without compiling every function of its classes anew to check its arguments.

    `typeguard.typechecked` decorates Feast's classes when they are made; `python -O` leaves it out as well.
    """
    decorator = typeguard.typechecked
    typeguard.typechecked = _unchanged  # type: ignore[assignment]
    try:
        with quiet("feast"):
            yield
    finally:
        typeguard.typechecked = decorator


def _unchanged(target: Callable[..., Any] | None = None, **_: object) -> Callable[..., Any]:
    return _unchanged if target is None else target
