"""Keep third-party chatter (progress bars, banners, deprecations inside their code) off our console."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_inside = 0
_hushed = ExitStack()


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Swallow output and warnings; errors are still raised, and still logged by `loggers`.

    Output and warning filters belong to the process, so of several threads inside at once the first hushes them and
    the last restores them.
    """
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    _enter()
    try:
        yield
    finally:
        _leave()


@contextmanager
def unguarded() -> Iterator[None]:
    """Import without typeguard: it rewrites all of Feast's classes, which takes longer than the rest of the import."""
    import typeguard  # noqa: PLC0415 - comes with Feast

    checked, typeguard.typechecked = typeguard.typechecked, _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked


def _as_it_is(target: T) -> T:
    return target


def _enter() -> None:
    global _inside  # noqa: PLW0603 - so are the streams and the filters
    with _lock:
        _inside += 1
        if _inside == 1:
            _hushed.enter_context(warnings.catch_warnings())
            _hushed.enter_context(redirect_stdout(io.StringIO()))
            _hushed.enter_context(redirect_stderr(io.StringIO()))
            warnings.simplefilter("ignore")


def _leave() -> None:
    global _inside  # noqa: PLW0603 - as above
    with _lock:
        _inside -= 1
        if _inside == 0:
            _hushed.close()
