"""From a question to an answer: read histories from the online store, or use a substitute, then rank."""

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
from elcrec.serving.live import Live
from elcrec.serving.loaded import Serving
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
from elcrec.serving.traces import NO_TRACES, Span, Traces

logger = logging.getLogger(__name__)

_READERS = 2
_ID_BYTES = 16
_HERE = 3
"""Number of queries up to which no other thread is used: switching threads takes as long as the ranking."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request for recommendations.

    Attributes:
        user_id: the user whose history is read from the store; `None` reads none.
        history: raw item ids, oldest first, used if the store is not asked or does not answer.
        k: how many items.
        allow: raw ids that may be recommended; `None` allows all.
        deny: raw ids that must not be recommended.
        categories: categories that may be recommended; `None` allows all, and items without a category.
        deny_categories: categories that must not be recommended.
        explain: whether the answer names the items of the history that contribute to each score.
        span: span of the request, if it is traced.
        in_test: whether the challenger may answer; false if the request names the champion's version.
    """

    user_id: str | None
    history: Sequence[str] | None
    k: int
    allow: Collection[str] | None = None
    deny: Collection[str] = ()
    categories: Collection[str] | None = None
    deny_categories: Collection[str] = ()
    explain: bool = False
    span: Span = None
    in_test: bool = True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Recommendations and what they are based on.

    Attributes:
        answer_id: id of this answer, unique over all servers; an event may name it as the answer that it follows.
        serving: the version that ranked the items.
        source: where the history came from; `none` for a cold user.
        history: raw item ids, oldest first.
        stale: the store's history is old.
        store_available: false if the store was asked and did not answer.
        arm: the user's arm of the running test, whichever version answered; `None` if no test runs, or the question is
            outside it.
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
    """Answers questions in batches, and stores events."""

    def __init__(
        self,
        config: ServeConfig,
        live: Live,
        features: FeatureStore,
        telemetry: Telemetry,
        traces: Traces = NO_TRACES,
    ) -> None:
        """Take the parts; threads start with the first question."""
        self._live, self._telemetry, self._traces = live, telemetry, traces
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
        # Only one writer: the store reads a history, appends to it, and writes it back.
        self._writing = ThreadPoolExecutor(1, "events")
        self._batcher: Batcher[Question, Answer] = Batcher(
            self._answer, size=config.batch_size, wait=config.batch_wait, queue=config.limits.queue
        )

    async def ask(self, question: Question) -> Answer:
        """Answer one question, in a batch with others that arrive at the same time.

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
        # A request that timed out may continue in its thread for a while, and counts until it ends.
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
        self._telemetry.following_events.inc(sum(event.answer_id is not None for event in events))
        return outcome

    def _pushed(self, _: object) -> None:
        self._pushes.release()

    @property
    def problem(self) -> str | None:
        """What is wrong with the online store; `None` if no problem is known."""
        return self._histories.problem or self._event_problem

    def close(self) -> None:
        """Let the threads end."""
        self._histories.close()
        if self._shadow is not None:
            self._shadow.close()
        for pool in (self._ranking, self._writing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer a batch: the questions of one arm together, and both arms at the same time."""
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
        """The test that splits users between two versions, if there is one."""
        return None if self._share is None or self._live.challenger is None else self._live.challenger.challenge

    def _arm(self, question: Question, challenge: Challenge | None) -> Arm | None:
        """Return the user's arm; a request without a user cannot be followed up, so the champion answers it."""
        if challenge is None or self._share is None or question.user_id is None or not question.in_test:
            return None
        return arm_of(question.user_id, test=challenge.test, share=self._share)

    async def _try(
        self, challenger: Serving, champion: Serving, questions: Sequence[Question], arms: Sequence[Arm | None]
    ) -> list[Answer]:
        """Let the challenger answer, or the champion if the challenger fails in any way."""
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
        spans = [question.span for question in questions]
        found: Mapping[str, UserHistory | None] | None = {}
        if user_ids:
            with self._traces.part("store.read", spans):
                found = await self._histories.read(list(user_ids), serving.feature_service)
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
        with self._traces.part("rank", spans):
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
        """Choose the history for the ranking: the store's, else the request's, else none."""
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
        for answer in answers:
            labels = answer.serving.version, answer.recommendation.policy
            seen.recommendations.labels(*labels).inc()
            seen.impressions.labels(*labels).inc(len(answer.recommendation.item_ids))
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
    """Reads the online store with a timeout; while the store is down, no request waits for it."""

    def __init__(self, config: ServeConfig, features: FeatureStore, telemetry: Telemetry) -> None:
        self._timeout, self._retry = config.store_timeout, config.store_retry
        self._features, self._telemetry = features, telemetry
        self._pool = ThreadPoolExecutor(_READERS, "store")
        self.problem: str | None = None
        self._probe_at = 0.0
        self._probe: asyncio.Task[object] | None = None

    async def read(self, user_ids: Sequence[str], service: str) -> dict[str, UserHistory | None] | None:
        """Return features by user, `None` if the store does not answer."""
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
        except Exception as error:  # noqa: BLE001 - the user gets an answer, whatever the store raises
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
    """Describe the problem with the store without the store's own message, which may hold its address."""
    if isinstance(error, StoreReplaced):
        return "the online store is not the one that was published (emptied, replaced, or published in part)"
    return "the online store does not answer"
