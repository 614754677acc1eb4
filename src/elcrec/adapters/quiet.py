"""Suppress third-party output (progress bars, banners, deprecations in their code) on our console."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

_lock = threading.Lock()
_inside = 0
_hushed = ExitStack()
_levels: dict[str, int] = {}
"""The loggers' levels when the first thread entered."""


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Suppress output and warnings; errors are still raised, and still logged by `loggers`.

    Output, warning filters and loggers belong to the process. If several threads are inside at once, the first one
    suppresses them and the last one restores them.
    """
    _enter(loggers)
    try:
        yield
    finally:
        _leave()


def _enter(loggers: tuple[str, ...]) -> None:
    global _inside  # noqa: PLW0603 - streams and filters are global too
    with _lock:
        _inside += 1
        if _inside == 1:
            _hushed.enter_context(warnings.catch_warnings())
            _hushed.enter_context(redirect_stdout(io.StringIO()))
            _hushed.enter_context(redirect_stderr(io.StringIO()))
            warnings.simplefilter("ignore")
        for name in loggers:
            logger = logging.getLogger(name)
            _levels.setdefault(name, logger.level)
            # Repeated each time: MLflow sets its loggers' levels when it creates a database.
            logger.setLevel(logging.ERROR)


def _leave() -> None:
    global _inside  # noqa: PLW0603 - as above
    with _lock:
        _inside -= 1
        if _inside == 0:
            _hushed.close()
            for name, level in _levels.items():
                logging.getLogger(name).setLevel(level)
            _levels.clear()
