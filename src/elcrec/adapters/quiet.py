"""Keep third-party chatter (progress bars, banners, deprecations inside their code) off our console."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Swallow output and warnings; errors are still raised, and still logged by `loggers`."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
