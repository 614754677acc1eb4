"""Records of what was shown to whom, written in the background so that no request waits.

The thread that made an answer turns it into a line of JSON, in microseconds. Another thread writes the lines, which
does not hold the interpreter's lock. Arrow makes columns from all lines at once when a file is complete: work in Python
beside the answers would delay some of them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from elcrec.config import ExposureLogConfig
from elcrec.data.user_keys import user_key
from elcrec.serving.engine import Answer, Question
from elcrec.serving.exposure_files import Journal, prepare
from elcrec.serving.exposure_sink import ExposureSink
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.25
_AT_ONCE = 1000
"""Lines written at a time."""

_encode = msgspec.json.Encoder().encode


class ExposureLog:
    """Takes answers and writes them in its own thread; those for which it has no room are counted and dropped."""

    def __init__(
        self,
        config: ExposureLogConfig,
        folder: Path | None,
        *,
        salt: str,
        telemetry: Telemetry,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take the parts.

        Args:
            config: the section `serve.exposures`.
            folder: where the files go, created if missing; `None`: no files, only the sink.
            salt: salt of the users' keys.
            telemetry: the server's metrics.
            clock: nanoseconds since 1970; a simulation passes its own.

        Raises:
            UserError: the folder cannot be written.
        """
        if folder is not None:
            prepare(folder)
        self._config, self._folder, self._salt = config, folder, salt
        self._telemetry, self._clock = telemetry, clock
        self._waiting: deque[bytes] = deque()
        self._journal: Journal | None = None
        self._seal_at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._sink = None if config.sink is None else ExposureSink(config, config.sink, telemetry)
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why exposures do not reach their destination; `None` if they do."""
        return self._problem or (None if self._sink is None else self._sink.problem)

    def start(self) -> None:
        """Begin to write and to post."""
        if self._folder is not None:
            self._thread.start()
        if self._sink is not None:
            self._sink.start()

    def add(self, question: Question, answer: Answer) -> None:
        """Take an answer that is about to be sent; returns at once."""
        row = as_row(self._clock() // 1000, question, answer, self._salt, raw_users=self._config.raw_users)
        line = _encode(row)
        if self._sink is not None:
            self._sink.add(line)
        if self._folder is None:
            return
        if len(self._waiting) >= self._config.queue:
            self._telemetry.exposures.labels("dropped").inc()
        else:
            self._waiting.append(line)

    def close(self) -> None:
        """Write all answers taken so far as complete files; post them as far as the time allows."""
        self._over.set()
        if self._folder is not None:
            self._thread.join()
        if self._sink is not None:
            self._sink.close()

    def _run(self) -> None:
        while not self._over.wait(_FLUSH_SECONDS):
            self._write(last=False)
        self._write(last=True)

    def _write(self, *, last: bool) -> None:
        """Append the waiting lines to the journal, and seal the journal when it is due."""
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                self._append(lines)
            except OSError as error:
                self._failed(error, len(lines))
                return
        journal = self._journal
        if journal is not None and (last or time.monotonic() >= self._seal_at or journal.rows >= self._config.rows):
            self._seal(journal)

    def _append(self, lines: Sequence[bytes]) -> None:
        if self._journal is None:
            assert self._folder is not None, "without a folder nothing waits to be written"
            self._journal = Journal(self._folder)
            self._seal_at = time.monotonic() + self._config.seconds
        self._journal.append(lines)
        self._telemetry.exposures.labels("written").inc(len(lines))
        self._problem = None

    def _seal(self, journal: Journal) -> None:
        self._journal = None
        try:
            journal.seal()
        except (OSError, pa.ArrowException) as error:
            self._failed(error, 0)

    def _failed(self, error: Exception, rows: int) -> None:
        """Continue with a new journal; the next server to start takes in the old one."""
        if self._journal is not None:
            self._journal.abandon()
            self._journal = None
        self._telemetry.exposures.labels("failed").inc(rows)
        self._problem = f"exposures are not written: {type(error).__name__}"
        logger.warning("exposures were not written", extra={"fields": {"kind": type(error).__name__, "rows": rows}})


def as_row(moment: int, question: Question, answer: Answer, salt: str, *, raw_users: bool = False) -> dict[str, Any]:
    """Return an answer as the columns of EXPOSURE_SCHEMA; `moment` is in microseconds since 1970.

    `raw_users` adds the user's own id to the key.
    """
    found, user = answer.recommendation, question.user_id
    return {
        "answer_id": answer.answer_id,
        "time": moment,
        "user_key": None if user is None else user_key(user, salt),
        "user_id": user if raw_users else None,
        "item_ids": found.item_ids,
        "scores": found.scores,
        "propensities": found.propensities,
        "intent": found.intent,
        "policy": found.policy,
        "known": found.known,
        "history_source": answer.source,
        "k": question.k,
        "allowed": None if question.allow is None else len(question.allow),
        "denied": len(question.deny),
        "model": answer.serving.name,
        "version": answer.serving.version,
        "digest": answer.serving.digest,
        "arm": answer.arm,
    }
