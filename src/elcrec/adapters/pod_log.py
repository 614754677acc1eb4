"""What following other pods takes: their log, what the Kubernetes API says, and what stops this process meanwhile."""

import logging
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import msgspec

logger = logging.getLogger(__name__)

TAIL_LINES = 60
"""Some 40 of them are torchrun's, after the error that counts."""


class PodLog:
    """A log that is copied as it grows; after a broken connection it goes on where it was.

    Args:
        read: yields the name of each pod whose log counts, and its lines from the first to the last that there is.
        seconds: pause between two looks.
    """

    def __init__(self, read: Callable[[], Iterator[tuple[str, Iterable[str]]]], seconds: float) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._read, self._seconds = read, seconds
        self._seen: Counter[str] = Counter()
        self._ended = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Copy in the background; at the end take what is left."""
        thread = threading.Thread(target=self._follow, name="pod-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
        thread.join(timeout=30)  # the pods have ended, so the log does
        while not thread.is_alive() and self._copy():
            pass

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._copy()
            self._ended.wait(self._seconds)

    def _copy(self) -> bool:
        """Copy what is new until the log ends or breaks; return whether anything was."""
        before = self._seen.total()
        # Whatever breaks the log, a restart of the API server or a rotated file, is no reason to stop the work.
        with suppress(Exception):
            for pod, lines in self._read():
                for line in islice(lines, self._seen[pod], None):
                    self._seen[pod] += 1
                    self.tail.append(line)
                    logger.info("%s", line)
        return self._seen.total() > before


def api_message(error: BaseException) -> str:
    """Return what the Kubernetes API says in the body of a refusal; nothing where it has none."""
    try:
        return str(msgspec.json.decode(getattr(error, "body", None) or b"{}").get("message", ""))
    except (msgspec.DecodeError, AttributeError, TypeError):
        return ""


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM, by which Kubernetes stops a pod, run our clean-up; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
