"""The real server's components in one process: versions, engine, event log, exposures; only time is simulated."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.simulation.shop import Found, Shop, Visit, user_name
from elcrec.adapters.store import Store
from elcrec.config import Config, ExposureLogConfig, ServeConfig
from elcrec.serving.arms import Arm
from elcrec.serving.engine import Answer, Engine, Question
from elcrec.serving.exposures import ExposureLog
from elcrec.serving.live import Live
from elcrec.serving.ports import Event
from elcrec.serving.telemetry import Telemetry

Mode = Literal["off", "shadow", "split"]

SHOWN = 10
_AT_ONCE = 64
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), datetime.resolution
_PATIENCE, _POLL_SECONDS, _EVERY = 600.0, 0.02, 1 << 20


@dataclass(kw_only=True)
class Served:
    """The results of a day.

    Attributes:
        answers: number of answers by arm.
        clicks: clicks on shown items by arm.
        wanted: events by the planted intent of their item.
        overlap: mean share of an answer that a challenger in shadow would have shown too; `None` without a shadow.
    """

    answers: Counter[Arm] = field(default_factory=Counter)
    clicks: Counter[Arm] = field(default_factory=Counter)
    wanted: Counter[int] = field(default_factory=Counter)
    overlap: float | None = None

    def ctr(self, arm: Arm | None = None) -> float | None:
        """Return clicks per shown item, of one arm or of all; `None` without answers."""
        answers = self.answers.total() if arm is None else self.answers[arm]
        clicks = self.clicks.total() if arm is None else self.clicks[arm]
        return clicks / (answers * SHOWN) if answers else None


class Clock:
    """The simulated time in nanoseconds since 1970, for the log of exposures."""

    def __init__(self) -> None:
        """Start at the earliest time."""
        self.now = 0

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def set(self, moment: datetime) -> None:
        """Set the time."""
        self.now = (moment - _EPOCH) // _MICROSECOND * 1000


def serve_day(
    config: Config, store: Store, exposures: Path, shop: Shop, visits: Sequence[Visit], *, mode: Mode, seed: int
) -> Served:
    """Start the server, serve all visits of a day, and stop it."""
    return asyncio.run(_serve(config, store, exposures, shop, visits, mode, seed))


async def _serve(
    config: Config, store: Store, exposures: Path, shop: Shop, visits: Sequence[Visit], mode: Mode, seed: int
) -> Served:
    serve = _patient(config, exposures, mode)
    telemetry, clock, served = Telemetry(), Clock(), Served()
    live = Live(config.push.model_name, store.registry, store.features, telemetry, challenged=mode != "off", seed=seed)
    log = ExposureLog(serve.exposures, exposures, salt=store.user_salt, telemetry=telemetry, clock=clock)
    log.start()
    with closing(log), closing(Engine(serve, live, store.features, telemetry)) as engine:
        for chunk in _chunks(visits):
            await _take(engine, [event for visit in chunk for event in shop.find(visit)], shop, served)
            questions = [Question(user_id=user_name(visit.user), history=None, k=SHOWN) for visit in chunk]
            answers = await asyncio.gather(*(engine.ask(question) for question in questions))
            for visit, question, answer in zip(chunk, questions, answers, strict=True):
                clock.set(visit.moment)
                log.add(question, answer)
            clicked = [_click(shop, visit, answer, served) for visit, answer in zip(chunk, answers, strict=True)]
            await _take(engine, [event for each in clicked for event in each], shop, served)
        if mode == "shadow":
            served.overlap = await _overlap(telemetry, served.answers.total())
    return served


async def _overlap(telemetry: Telemetry, answers: int) -> float | None:
    """Wait until the shadow has compared every answer; return the mean overlap."""
    while (found := _samples(telemetry))["elcrec_shadow_overlap_count"] < answers:
        if found["elcrec_challenger_failures_total"]:
            return None
        await asyncio.sleep(_POLL_SECONDS)
    return found["elcrec_shadow_overlap_sum"] / answers


def _samples(telemetry: Telemetry) -> dict[str, float]:
    metrics = [*telemetry.arms.overlap.collect(), *telemetry.arms.failures.collect()]
    return {sample.name: sample.value for metric in metrics for sample in metric.samples}


def _patient(config: Config, exposures: Path, mode: Mode) -> ServeConfig:
    """Return the section `serve` with time limits that even a busy machine does not reach, as they use real time."""
    return msgspec.structs.replace(
        config.serve,
        store_timeout=_PATIENCE,
        event_timeout=_PATIENCE,
        exposures=ExposureLogConfig(folder=str(exposures)),
        challenger=msgspec.structs.replace(config.serve.challenger, mode=mode, sample=1.0, queue=_EVERY),
    )


def _chunks(visits: Sequence[Visit]) -> Iterator[Sequence[Visit]]:
    for start in range(0, len(visits), _AT_ONCE):
        yield visits[start : start + _AT_ONCE]


def _click(shop: Shop, visit: Visit, answer: Answer, served: Served) -> list[Found]:
    clicked = shop.click(visit, answer.answer_id, answer.recommendation.item_ids)
    served.answers[answer.arm or "champion"] += 1
    served.clicks[answer.arm or "champion"] += len(clicked)
    return clicked


async def _take(engine: Engine, found: Sequence[Found], shop: Shop, served: Served) -> None:
    served.wanted.update(shop.intent_of(each.item_id) for each in found)
    events = [
        Event(user_id=each.user_id, item_id=each.item_id, timestamp=each.moment, answer_id=each.answer_id)
        for each in found
    ]
    if events:
        await engine.push(events)
