"""The simulated shop: its users behave as planted, and the same for the same seed."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.simulation.shop import Habits, Shop

HABITS = Habits(users=300, visits=0.5, noise=0.0, days_before=10)


@pytest.fixture
def shop() -> Shop:
    return Shop(HABITS, 3)


def found(shop: Shop, day: int) -> Counter[int]:
    return Counter(shop.intent_of(event.item_id) for visit in shop.visits(day) for event in shop.find(visit))


def test_the_same_seed_gives_the_same_days(shop: Shop) -> None:
    other = Shop(HABITS, 3)

    assert shop.history() == other.history()
    assert shop.visits(0) == other.visits(0)


def test_drifting_users_prefer_the_rare_intents(shop: Shop) -> None:
    before = found(shop, 0)
    shop.drift()
    after = found(shop, 1)

    rare = sum(count for intent, count in after.items() if intent >= HABITS.common) / after.total()
    assert all(intent < HABITS.common for intent in before)
    assert rare == pytest.approx(HABITS.turned, abs=0.12)


def test_what_suits_a_user_is_clicked_and_less_so_further_down(shop: Shop) -> None:
    (visit, *_) = shop.visits(0)
    own = {shop.intent_of(event.item_id) for _ in range(50) for event in shop.find(visit)}
    items = sorted(shop._names, key=lambda item: shop.intent_of(item) not in own)
    suits, others = items[:10], items[-10:]

    clicks = [[event.item_id for event in shop.click(visit, "a", suits)] for _ in range(400)]
    rates = [np.mean([item in each for each in clicks]) for item in suits]

    assert np.mean(rates[:5]) > np.mean(rates[5:]) > 0.05
    assert np.mean([len(shop.click(visit, "a", others)) for _ in range(400)]) / 10 < 0.02


def test_events_of_a_visit_have_times_of_their_own_before_the_answer_and_after(shop: Shop) -> None:
    (visit, *_) = [each for each in shop.visits(0) if len(shop.find(each)) > 1]

    earlier, later = shop.find(visit), shop.click(visit, "a", shop._names)

    times = [event.moment for event in [*earlier, *later]]
    assert times == sorted(set(times))
    assert all(event.moment < visit.moment for event in earlier)
    assert all(event.moment > visit.moment and event.answer_id == "a" for event in later)
