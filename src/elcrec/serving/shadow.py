"""The challenger in shadow mode: it ranks a sample of the same requests, and nobody sees its answers."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from elcrec.config import ChallengerConfig
from elcrec.serving.challenger import Challenger
from elcrec.serving.recommender import Query, Recommendation
from elcrec.serving.telemetry import Telemetry

_AT_ONCE = 8
"""Largest number of queries ranked together: a longer ranking would delay the server's own thread."""
_IDLE_SECONDS = 0.05
_PERSISTENCE = 0.9

logger = logging.getLogger(__name__)


class Shadow:
    """Takes answers of the champion and compares them in its own thread; no request waits for it."""

    def __init__(self, config: ChallengerConfig, challenger: Challenger, telemetry: Telemetry) -> None:
        """Take the parts; the thread starts with the first answer."""
        self._config, self._challenger, self._telemetry = config, challenger, telemetry
        self._waiting: deque[tuple[Query, list[str]]] = deque()
        self._chance = random.Random()  # noqa: S311 - the sample of compared answers is no secret
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, queries: Sequence[Query], answers: Sequence[Recommendation]) -> None:
        """Take a sample of the champion's new answers; returns at once."""
        challenge = self._challenger.challenge
        if challenge is None or challenge.serving is None:
            return
        for query, answer in zip(queries, answers, strict=True):
            if self._chance.random() < self._config.sample:
                self._take(query, answer.item_ids)

    def close(self) -> None:
        """Let the thread end; waiting answers are dropped."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _take(self, query: Query, item_ids: list[str]) -> None:
        if len(self._waiting) >= self._config.queue:
            self._telemetry.arms.shadow.labels("dropped").inc()
            return
        self._waiting.append((replace(query, explain=False), item_ids))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._waiting:
                self._compare([self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))])
            else:
                self._over.wait(_IDLE_SECONDS)

    def _compare(self, pairs: Sequence[tuple[Query, list[str]]]) -> None:
        challenge, seen = self._challenger.challenge, self._telemetry.arms
        if challenge is None or challenge.serving is None:
            return
        started = time.perf_counter()
        try:
            found = challenge.serving.recommender.recommend([query for query, _ in pairs])
        except Exception as error:  # noqa: BLE001 - an error of the challenger must not affect a request
            self._challenger.failed(error)
            seen.shadow.labels("failed").inc(len(pairs))
            return
        seen.rank_seconds.labels("challenger").observe(time.perf_counter() - started)
        for (query, shown), other in zip(pairs, found, strict=True):
            seen.overlap.observe(overlap(shown, other.item_ids, query.k))
            seen.rank_biased_overlap.observe(rank_biased_overlap(shown, other.item_ids))
        seen.shadow.labels("compared").inc(len(pairs))


def overlap(one: Sequence[str], other: Sequence[str], k: int) -> float:
    """Return the share of items that are in both lists, of `k` or of the longer list's length."""
    longest = min(k, max(len(one), len(other)))
    return len(set(one).intersection(other)) / longest if longest else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = _PERSISTENCE) -> float:
    """Return the extrapolated rank-biased overlap, RBO_EXT (Webber, Moffat and Zobel 2010, equation 30).

    The lists are compared to the depth of the shorter one; the result is 1 if both are empty.
    """
    depth = min(len(one), len(other))
    if not depth:
        return float(len(one) == len(other))
    seen_one: set[str] = set()
    seen_other: set[str] = set()
    agreement = total = 0.0
    for place in range(depth):
        seen_one.add(one[place])
        seen_other.add(other[place])
        agreement = len(seen_one & seen_other) / (place + 1)
        total += agreement * p ** (place + 1)
    return float(agreement * p**depth + (1 - p) / p * total)
