"""Output of a run on this machine: one line per change of a task, and everything else in a log file.

kfp.local reports through the root logger and prints the output of components, all on the thread that waits for the
task. Members of a loop run in parallel, so their output is distinguished by thread.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path

from pipelines.client import Task, describe

Say = Callable[[str], object]
LOG = "log.txt"
"""Name of the log in the folder of a run."""

_COLOUR = re.compile(r"\x1b\[\d+m")
_STARTED = re.compile(r"Executing task '(?P<task>.+)'")
_ENDED = re.compile(r"Task '(?P<task>.+)' finished with status (?P<status>\w+)")
_SKIPPED = re.compile(r"Skipping conditional task (?P<task>\S+) ")
_STATES = {"SUCCESS": "SUCCEEDED", "FAILURE": "FAILED"}
"""The server's words for kfp.local's states of ended tasks."""
_OWN_ERROR = "elcrec: error: "
"""Prefix of the message of an error for users."""


class _Thread(threading.local):
    """The output and the task of one thread."""

    rest = ""
    """Text of the unfinished line."""
    said = ""
    """The last non-empty line."""
    began = 0.0
    """Start time of its task."""


class RunLog(TextIOBase):
    """A text stream that writes whole lines to a file, which moves into the run's folder when that exists."""

    def __init__(self, path: Path, *, folder: Callable[[], Path | None], settled: Callable[[Path], object]) -> None:
        """Write to `path` until `folder` returns a folder; then report the place of the log with `settled`."""
        self.path = path
        self.thread = _Thread()
        self._find, self._settled = folder, settled
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that `text` completes, without colour codes."""
        *lines, self.thread.rest = _COLOUR.sub("", self.thread.rest + text).split("\n")
        for line in lines:
            self.thread.said = line.strip() or self.thread.said
        if lines:
            with self._lock:
                self._file.writelines(f"{line}\n" for line in lines)
                self._settle()
        return len(text)

    def close(self) -> None:
        """Close the file, in the run's folder if there is one."""
        if not self.closed:
            with self._lock:
                self._settle()
                self._file.close()
        super().close()

    @property
    def folder(self) -> Path | None:
        """The folder of the run; `None` before its first task."""
        return self._folder

    def _settle(self) -> None:
        if self._folder or not (found := self._find()):
            return
        self._folder, self.path = found, self.path.rename(found / LOG)
        self._settled(self.path)


class _Progress(logging.Filter):
    """Passes every record on, and reports what those of kfp.local mean for a task."""

    def __init__(self, log: RunLog, names: Mapping[str, str], say: Say) -> None:
        super().__init__()
        self._log, self._names, self._say = log, names, say

    def filter(self, record: logging.LogRecord) -> bool:
        text = _COLOUR.sub("", record.getMessage())
        thread = self._log.thread
        if found := _STARTED.fullmatch(text):
            thread.began, thread.said = time.monotonic(), ""
            self._tell(found["task"], "RUNNING", 0.0)
        elif found := _ENDED.fullmatch(text):
            state = _STATES[found["status"]]
            error = thread.said.removeprefix(_OWN_ERROR) if state == "FAILED" else ""
            self._tell(found["task"], state, time.monotonic() - thread.began, error)
        elif found := _SKIPPED.match(text):
            self._tell(found["task"], "SKIPPED", None)
        return True

    def _tell(self, task: str, state: str, seconds: float | None, error: str = "") -> None:
        name = self._names.get(task, task)
        self._say(describe(Task(id=task, name=name, state=state, seconds=seconds, error=error)))


@contextmanager
def following(log: RunLog, names: Mapping[str, str], say: Say) -> Iterator[None]:
    """Report tasks with `say`, and send all other output of kfp and the components to `log`.

    Args:
        log: Destination of all output.
        names: Names of tasks in the UI, by kfp.local's names.
        say: Takes a line; it must not use `print`, which kfp replaces while a task runs.
    """
    root, progress = logging.getLogger(), _Progress(log, names, say)
    level, handlers = root.level, root.handlers[:]
    # Members of a loop restore level and handlers in any order, so the logger must look the same to each of them.
    root.setLevel(logging.INFO)
    root.handlers[:] = [logging.StreamHandler(log)]
    root.addFilter(progress)
    try:
        with redirect_stdout(log):
            yield
    finally:
        root.removeFilter(progress)
        root.setLevel(level)
        root.handlers[:] = handlers


def teller() -> Say:
    """Return a function that writes a line at once to the present standard output."""
    stream = sys.stdout

    def say(line: str) -> None:
        stream.write(f"{line}\n")
        stream.flush()

    return say
