import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from elcrec.config import ServeConfig
from elcrec.serving.engine import Answer, Engine, Question
from elcrec.serving.live import Live
from elcrec.serving.ports import Event, PushOutcome
from elcrec.serving.telemetry import Telemetry
from tests.support.serving import NAME, Installation

CONFIG = ServeConfig(store_timeout=30, event_timeout=30)


def ask_around_an_event(installation: Installation) -> tuple[Answer, PushOutcome, Answer]:
    """Ask, let the user meet an item now, and ask again."""
    store, telemetry = installation.store, Telemetry()
    engine = Engine(CONFIG, Live(NAME, installation.registry, store, telemetry), store, telemetry)
    question = Question(user_id="user-1", history=None, k=3)
    event = Event(user_id="user-1", item_id="item-1", timestamp=datetime.now(UTC))

    async def scene() -> tuple[Answer, PushOutcome, Answer]:
        return await engine.ask(question), await engine.push([event]), await engine.ask(question)

    try:
        return asyncio.run(scene())
    finally:
        engine.close()


def test_a_user_with_only_dislikes_gets_popular_items_without_the_disliked(tmp_path: Path) -> None:
    installation = Installation.make(tmp_path, split={"kinds": {"dislikes": ["no"]}})
    store, telemetry = installation.store, Telemetry()
    engine = Engine(CONFIG, Live(NAME, installation.registry, store, telemetry), store, telemetry)
    asked = [Question(user_id="new", history=history, k=15) for history in (None, ["item-1"])]
    event = Event(user_id="new", item_id="item-3", timestamp=datetime.now(UTC), kind="no")

    async def scene() -> list[Answer]:
        await engine.push([event])
        return [await engine.ask(question) for question in asked]

    try:
        cold, warm = asyncio.run(scene())
    finally:
        engine.close()
    assert (cold.source, warm.source) == ("none", "request")
    left = {f"item-{number}" for number in range(1, 16)} - {"item-3"}
    assert set(cold.recommendation.item_ids) == left
    assert set(warm.recommendation.item_ids) == left - {"item-1"}


@pytest.mark.parametrize(("time", "stale"), [("real", True), ("order", False)])
def test_a_history_is_stale_while_its_newest_event_is_old_and_times_are_real(
    tmp_path: Path, time: str, stale: bool
) -> None:
    before, outcome, after = ask_around_an_event(Installation.make(tmp_path, time=time))

    assert (before.source, before.stale) == ("store", stale)
    assert outcome == PushOutcome(accepted=1, duplicates=0, late=0, refused=0, users=1)
    assert (after.history, after.stale) == ([*before.history, "item-1"], False)
