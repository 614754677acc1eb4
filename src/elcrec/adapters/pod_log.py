"""Helpers for following other pods: their logs, and SIGTERM to ourselves."""

import logging
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice

logger = logging.getLogger(__name__)

TAIL_LINES = 60
"""Number of last lines; some 40 of them are torchrun's, after the actual error."""


class PodLog:
    """Copies logs as they grow; after a broken connection, copying resumes where it stopped.

    Args:
        read: yields the name of each pod and all present lines of its log.
        seconds: pause between two polls.
    """

    def __init__(self, read: Callable[[], Iterator[tuple[str, Iterable[str]]]], seconds: float) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._read, self._seconds = read, seconds
        self._seen: Counter[str] = Counter()
        self._ended = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Copy in the background; at the end copy the rest."""
        thread = threading.Thread(target=self._follow, name="pod-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
        thread.join(timeout=30)  # the pods have ended, so the log is complete
        while not thread.is_alive() and self._copy():
            pass

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._copy()
            self._ended.wait(self._seconds)

    def _copy(self) -> bool:
        """Copy new lines until the log ends or the connection breaks; return whether there were any."""
        before = self._seen.total()
        # A broken log, because of a restarted API server or a rotated file, must not stop the work.
        with suppress(Exception):
            for pod, lines in self._read():
                for line in islice(lines, self._seen[pod], None):
                    self._seen[pod] += 1
                    self.tail.append(line)
                    logger.info("%s", line)
        return self._seen.total() > before


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM, with which Kubernetes stops a pod, run our clean-up; works only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
