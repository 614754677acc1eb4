"""From a question to an answer: histories from the online store, or what stands in for them, then one ranking."""

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore

from elcrec.config import ServeConfig
from elcrec.serving.arms import Arm, arm_of
from elcrec.serving.batching import Batcher, QueueFull
from elcrec.serving.challenger import Challenge
from elcrec.serving.live import Live, Serving
from elcrec.serving.ports import (
    Event,
    FeatureStore,
    HistorySource,
    PushOutcome,
    StoreReplaced,
    StoreUnavailable,
    UserHistory,
)
from elcrec.serving.recommender import Query, Recommendation, Recommender
from elcrec.serving.shadow import Shadow
from elcrec.serving.shown import Shown
from elcrec.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)

_READERS = 2
_ID_BYTES = 16
_HERE = 3
"""Queries that are ranked without another thread: the way there and back takes as long as the ranking."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Whom to recommend for.

    Attributes:
        user_id: whose history is wanted from the store; `None` asks for nobody's.
        history: raw item ids, oldest first, used where the store is not asked or does not answer.
        k: how many items.
        allow: raw ids that may be recommended; `None` allows all.
        deny: raw ids that must not be.
        categories: those that may be; `None` allows all, and items without one.
        deny_categories: those that must not be.
        explain: whether the answer is to say which items of the history carry each score.
        in_test: whether the challenger may answer; false where the request names the champion's version.
    """

    user_id: str | None
    history: Sequence[str] | None
    k: int
    allow: Collection[str] | None = None
    deny: Collection[str] = ()
    categories: Collection[str] | None = None
    deny_categories: Collection[str] = ()
    explain: bool = False
    in_test: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Recommendations and what they rest on.

    Attributes:
        answer_id: names this answer among those of all servers; an event may say that it follows it.
        serving: the version that ranked.
        source: where the history came from; `none` for a cold user.
        history: raw item ids, oldest first.
        stale: the store's history is old.
        store_available: false where the store was wanted and did not answer.
        arm: the user's arm of the test that runs, whichever version had to answer; `None` where no test runs, or the
            question is outside it.
    """

    answer_id: str
    recommendation: Recommendation
    serving: Serving
    source: HistorySource
    history: Sequence[str]
    stale: bool
    store_available: bool
    arm: Arm | None = None


class Engine:
    """Answers questions in batches, and takes events."""

    def __init__(self, config: ServeConfig, live: Live, features: FeatureStore, telemetry: Telemetry) -> None:
        """Take the parts; threads start with the first question."""
        self._live, self._telemetry = live, telemetry
        self._stale_after = timedelta(seconds=config.stale_after)
        self._histories = _Histories(config, features, telemetry)
        self._event_timeout, self._features = config.event_timeout, features
        self._pushes = BoundedSemaphore(config.limits.event_requests)
        self._event_problem: str | None = None
        self._new_users = config.limits.new_users
        self._shown = Shown()
        self._share = config.challenger.share if config.challenger.mode == "split" else None
        self._shadow: Shadow | None = None
        if config.challenger.mode == "shadow" and live.challenger is not None:
            self._shadow = Shadow(config.challenger, live.challenger, telemetry)
        self._ranking = ThreadPoolExecutor(1, "rank")
        # One writer: the store reads a history, appends, and writes it back.
        self._writing = ThreadPoolExecutor(1, "events")
        self._batcher: Batcher[Question, Answer] = Batcher(
            self._answer, size=config.batch_size, wait=config.batch_wait, queue=config.limits.queue
        )

    async def ask(self, question: Question) -> Answer:
        """Answer one question, together with others that come at the same time.

        Raises:
            QueueFull: too many questions wait.
        """
        return await self._batcher.ask(question)

    async def push(self, events: Sequence[Event]) -> PushOutcome:
        """Append events to their users' histories.

        Raises:
            QueueFull: too many requests with events wait for the store.
            StoreUnavailable: the store does not answer in time; some events may be in it.
        """
        if not self._pushes.acquire(blocking=False):
            raise QueueFull
        work = self._writing.submit(
            self._features.push_events,
            events,
            new_users=self._new_users,
            knows=self._live.current.recommender.catalogue,
            dislikes=self._live.current.recommender.dislikes,
        )
        # One that is given up may go on for a while in its thread, and counts as long.
        work.add_done_callback(self._pushed)
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(work), self._event_timeout)
        except Exception as error:
            self._telemetry.store_errors.labels("write").inc()
            self._event_problem = f"events are not stored: {_problem(error)}"
            logger.warning("events were not stored", extra={"fields": {"kind": _problem(error)}})
            raise StoreUnavailable("the online store does not take events", fix="send them again later") from error
        self._event_problem = None
        for name in ("accepted", "duplicates", "late", "refused"):
            self._telemetry.events.labels(name).inc(getattr(outcome, name))
        return outcome

    def _pushed(self, _: object) -> None:
        self._pushes.release()

    @property
    def problem(self) -> str | None:
        """What is wrong with the online store, `None` where nothing is known to be."""
        return self._histories.problem or self._event_problem

    def close(self) -> None:
        """Let the threads end."""
        self._histories.close()
        if self._shadow is not None:
            self._shadow.close()
        for pool in (self._ranking, self._writing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer a batch: those of one arm together, and both arms at the same time."""
        champion, challenge = self._live.current, self._challenge
        arms = [self._arm(question, challenge) for question in questions]
        if challenge is None or challenge.serving is None or "challenger" not in arms:
            return await self._answer_by(champion, questions, arms)
        places: dict[bool, list[int]] = {False: [], True: []}
        for place, arm in enumerate(arms):
            places[arm == "challenger"].append(place)
        asked = {tried: ([questions[each] for each in of], [arms[each] for each in of]) for tried, of in places.items()}
        rest = self._answer_by(champion, *asked[False]) if places[False] else _nothing()
        by_champion, by_challenger = await asyncio.gather(rest, self._try(challenge.serving, champion, *asked[True]))
        answers = zip([*places[False], *places[True]], [*by_champion, *by_challenger], strict=True)
        return [answer for _, answer in sorted(answers, key=lambda answer: answer[0])]

    @property
    def _challenge(self) -> Challenge | None:
        """The test that splits users between two versions, if one does."""
        return None if self._share is None or self._live.challenger is None else self._live.challenger.challenge

    def _arm(self, question: Question, challenge: Challenge | None) -> Arm | None:
        """Return the arm of who asks; without a name they could not be met again, so the champion answers them."""
        if challenge is None or self._share is None or question.user_id is None or not question.in_test:
            return None
        return arm_of(question.user_id, test=challenge.test, share=self._share)

    async def _try(
        self, challenger: Serving, champion: Serving, questions: Sequence[Question], arms: Sequence[Arm | None]
    ) -> list[Answer]:
        """Answer by the challenger, or, whatever is wrong with it, by the champion."""
        try:
            return await self._answer_by(challenger, questions, arms)
        except Exception as error:  # noqa: BLE001 - a challenger may fail in any way
            if self._live.challenger is not None:
                self._live.challenger.failed(error)
            return await self._answer_by(champion, questions, arms)

    async def _answer_by(
        self, serving: Serving, questions: Sequence[Question], arms: Sequence[Arm | None]
    ) -> list[Answer]:
        self._telemetry.batch_size.observe(len(questions))
        by = "champion" if serving is self._live.current else "challenger"
        user_ids = {question.user_id for question in questions if question.user_id is not None}
        found = await self._histories.read(list(user_ids), serving.feature_service) if user_ids else {}
        bases = [self._base(question, found, serving) for question in questions]
        seconds = serving.recommender.rules.shown_seconds
        queries = [
            Query(
                history=base.history,
                k=question.k,
                allow=question.allow,
                deny=[*question.deny, *self._shown.to(question.user_id, seconds)] if seconds else question.deny,
                categories=question.categories,
                deny_categories=question.deny_categories,
                seen=base.seen,
                explain=question.explain,
            )
            for question, base in zip(questions, bases, strict=True)
        ]
        started = time.perf_counter()
        recommendations = await self._rank(serving.recommender, queries)
        self._telemetry.arms.rank_seconds.labels(by).observe(time.perf_counter() - started)
        answers = [
            Answer(
                answer_id=secrets.token_hex(_ID_BYTES),
                recommendation=recommendation,
                serving=serving,
                source=base.source,
                history=base.history,
                stale=base.stale,
                store_available=base.store_available,
                arm=arm,
            )
            for recommendation, base, arm in zip(recommendations, bases, arms, strict=True)
        ]
        if seconds:
            for question, recommendation in zip(questions, recommendations, strict=True):
                self._shown.add(question.user_id, recommendation.item_ids)
        self._count(answers)
        if self._shadow is not None:
            self._shadow.offer(queries, recommendations)
        return answers

    async def _rank(self, recommender: Recommender, queries: Sequence[Query]) -> list[Recommendation]:
        if len(queries) <= _HERE and not any(query.explain for query in queries):
            return recommender.recommend(queries)
        return await asyncio.get_running_loop().run_in_executor(self._ranking, recommender.recommend, queries)

    def _base(self, question: Question, found: Mapping[str, UserHistory | None] | None, serving: Serving) -> "_Base":
        """Choose what the ranking reads: the store's history, else the request's, else none."""
        available = found is not None or question.user_id is None
        known = found.get(question.user_id) if found is not None and question.user_id is not None else None
        seen = () if known is None else known.seen
        if known is not None and known.updated is not None:
            stale = serving.has_real_times and datetime.now(UTC) - known.updated > self._stale_after
            return _Base(source="store", history=known.item_ids, seen=seen, stale=stale, store_available=True)
        source: HistorySource = "request" if question.history else "none"
        return _Base(source=source, history=question.history or (), seen=seen, stale=False, store_available=available)

    def _count(self, answers: Sequence[Answer]) -> None:
        seen = self._telemetry
        seen.cold_users.inc(sum(answer.recommendation.fallback for answer in answers))
        seen.unknown_items.inc(sum(answer.recommendation.skipped for answer in answers))
        seen.stale_features.inc(sum(answer.stale for answer in answers))
        seen.store_fallbacks.inc(sum(not answer.store_available for answer in answers))
        for answer in answers:
            seen.arms.answers.labels(answer.arm or "champion").inc()


async def _nothing() -> list[Answer]:
    return []


@dataclass(frozen=True, kw_only=True)
class _Base:
    source: HistorySource
    history: Sequence[str]
    stale: bool
    store_available: bool
    seen: Sequence[str] = ()


class _Histories:
    """Reads the online store within a time-out; while it is down, nobody waits for it."""

    def __init__(self, config: ServeConfig, features: FeatureStore, telemetry: Telemetry) -> None:
        self._timeout, self._retry = config.store_timeout, config.store_retry
        self._features, self._telemetry = features, telemetry
        self._pool = ThreadPoolExecutor(_READERS, "store")
        self.problem: str | None = None
        self._probe_at = 0.0
        self._probe: asyncio.Task[object] | None = None

    async def read(self, user_ids: Sequence[str], service: str) -> dict[str, UserHistory | None] | None:
        """Return features by user, `None` where the store does not answer."""
        if self.problem is None:
            return await self._ask(user_ids, service)
        if self._probe is None and time.monotonic() >= self._probe_at:
            self._probe = asyncio.create_task(self._ask(user_ids[:1], service))
            self._probe.add_done_callback(self._probed)
        return None

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, user_ids: Sequence[str], service: str) -> dict[str, UserHistory | None] | None:
        started = time.perf_counter()
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._read, user_ids, service)
        try:
            found = await asyncio.wait_for(work, self._timeout)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, the user gets an answer
            self._telemetry.store_errors.labels("read").inc()
            problem = _problem(error)
            if problem != self.problem:
                logger.warning("%s", problem)
            self.problem, self._probe_at = problem, time.monotonic() + self._retry
            return None
        if self.problem is not None:
            logger.info("the online store is back")
        self.problem = None
        self._telemetry.store_seconds.observe(time.perf_counter() - started)
        return dict(zip(user_ids, found, strict=True))

    def _read(self, user_ids: Sequence[str], service: str) -> Sequence[UserHistory | None]:
        return self._features.histories(user_ids, service=service)

    def _probed(self, _: object) -> None:
        self._probe = None


def _problem(error: Exception) -> str:
    """Say what is wrong with the store; what a store says of itself may hold its address, so it stays out."""
    if isinstance(error, StoreReplaced):
        return "the online store is not the one that was published (emptied, replaced, or published in part)"
    return "the online store does not answer"
