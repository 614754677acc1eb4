"""What was shown to whom, written down beside the answers: nobody waits for it."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from elcrec.config import ExposureLogConfig
from elcrec.data.user_keys import user_key
from elcrec.serving.engine import Answer, Question
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA, Journal, prepare
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.25
_AT_ONCE = 32
"""Answers made a batch at a time: more of them would keep the server's own thread waiting for longer."""

Shown = tuple[int, Question, Answer]
"""When (microseconds since 1970), what was asked, and what was answered."""


class ExposureLog:
    """Takes answers, and writes them in a thread of its own; what it has no room for is counted and left out."""

    def __init__(
        self,
        config: ExposureLogConfig,
        folder: Path,
        *,
        salt: str,
        telemetry: Telemetry,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take the parts.

        Args:
            config: the section `serve.exposures`.
            folder: where the files go, made if it is not there.
            salt: what users' keys are made with.
            telemetry: the server's metrics.
            clock: nanoseconds since 1970; a simulation has one of its own.

        Raises:
            UserError: the folder cannot be written.
        """
        prepare(folder)
        self._config, self._folder, self._salt = config, folder, salt
        self._telemetry, self._clock = telemetry, clock
        self._waiting: deque[Shown] = deque()
        self._journal: Journal | None = None
        self._seal_at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def add(self, question: Question, answer: Answer) -> None:
        """Take an answer that is about to be sent; returns at once."""
        if len(self._waiting) >= self._config.queue:
            self._telemetry.exposures.labels("dropped").inc()
            return
        self._waiting.append((self._clock() // 1000, question, answer))

    def close(self) -> None:
        """Write down all that was taken, as whole files."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_FLUSH_SECONDS):
            self._write(last=False)
        self._write(last=True)

    def _write(self, *, last: bool) -> None:
        """Append what waits to the journal, and seal that when it is due."""
        while self._waiting:
            rows = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                self._append(rows)
            except (OSError, pa.ArrowException) as error:
                self._failed(error, len(rows))
                return
        journal = self._journal
        if journal is not None and (last or time.monotonic() >= self._seal_at or journal.rows >= self._config.rows):
            self._seal(journal)

    def _append(self, rows: Sequence[Shown]) -> None:
        if self._journal is None:
            self._journal = Journal(self._folder)
            self._seal_at = time.monotonic() + self._config.seconds
        self._journal.append(as_batch(rows, self._salt, raw_users=self._config.raw_users))
        self._telemetry.exposures.labels("written").inc(len(rows))
        self.problem = None

    def _seal(self, journal: Journal) -> None:
        self._journal = None
        try:
            journal.seal()
        except (OSError, pa.ArrowException) as error:
            self._failed(error, 0)

    def _failed(self, error: Exception, rows: int) -> None:
        """Go on with a new journal; what was in the old one is taken in when a server starts."""
        if self._journal is not None:
            self._journal.abandon()
            self._journal = None
        self._telemetry.exposures.labels("failed").inc(rows)
        self.problem = f"exposures are not written: {type(error).__name__}"
        logger.warning("exposures were not written", extra={"fields": {"kind": type(error).__name__, "rows": rows}})


def as_batch(rows: Sequence[Shown], salt: str, *, raw_users: bool = False) -> pa.RecordBatch:
    """Return answers as columns of EXPOSURE_SCHEMA; `raw_users` adds the users' own ids to their keys."""
    asked, answers = [question for _, question, _ in rows], [answer for _, _, answer in rows]
    found = [each.recommendation for each in answers]
    users = [each.user_id for each in asked]
    columns = {
        "answer_id": [each.answer_id for each in answers],
        "time": [moment for moment, _, _ in rows],
        "user_key": [None if user is None else user_key(user, salt) for user in users],
        "user_id": users if raw_users else [None] * len(users),
        "item_ids": [each.item_ids for each in found],
        "scores": [each.scores for each in found],
        "propensities": [each.propensities for each in found],
        "intent": [each.intent for each in found],
        "policy": [_policy(answer) for answer in answers],
        "known": [each.known for each in found],
        "history_source": [each.source for each in answers],
        "k": [each.k for each in asked],
        "allowed": [None if each.allow is None else len(each.allow) for each in asked],
        "denied": [len(each.deny) for each in asked],
        "model": [each.serving.name for each in answers],
        "version": [each.serving.version for each in answers],
        "digest": [each.serving.recommender.manifest.digest for each in answers],
        "arm": [each.arm for each in answers],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in EXPOSURE_SCHEMA]
    return pa.record_batch(arrays, schema=EXPOSURE_SCHEMA)


def _policy(answer: Answer) -> str:
    """Name what chose the items: the model's ranking or popularity, and whether places were left to chance."""
    found = answer.recommendation
    kind = "popular" if found.fallback else "model"
    return kind if found.propensities is None else f"{kind}+exploration"
