"""Estimates on a log of answers cover the truth in worlds whose answers come from the real rules."""

from dataclasses import replace

import numpy as np
import pytest

from elcrec.evaluation.bootstrap import Estimate
from elcrec.evaluation.places import Estimates, Places, attention, estimate
from tests.support.logged_worlds import World

WORLDS, USERS = 6, 150
Case = tuple[Places, Estimates, float, float]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    worlds = [World(seed, users=200) for seed in range(WORLDS)]
    logs = [world.log(USERS) for world in worlds]
    return [(log, estimate(log, confidence=0.95), *world.truth) for world, log in zip(worlds, logs, strict=True)]


def test_intervals_cover_the_truth(cases: list[Case]) -> None:
    compared = [pair for _, found, *truth in cases for pair in _beside(found, *truth)]

    covered = [one.low <= truth <= one.high for one, truth in compared]
    errors = [(one.mean - truth) / (one.high - one.low) for one, truth in compared]

    assert np.mean(covered) >= 0.9
    assert abs(np.mean(errors)) < 0.15


def _beside(found: Estimates, champion: float, challenger: float) -> list[tuple[Estimate, float]]:
    of_challenger = [(one, challenger) for one in (found.ips, found.snips, found.doubly_robust)]
    return [(found.logged, champion), (found.difference, challenger - champion), *of_challenger]


def test_clicks_of_one_user_do_not_count_as_those_of_many(cases: list[Case]) -> None:
    places = cases[0][0]
    alone = replace(places, user=np.arange(len(places.user)))

    by_user, by_answer = estimate(places, confidence=0.95).logged, estimate(alone, confidence=0.95).logged

    assert by_user.high - by_user.low > by_answer.high - by_answer.low


def test_the_champion_on_its_own_log_earns_what_it_earned(cases: list[Case]) -> None:
    places = replace(cases[0][0], target_NP=cases[0][0].logged_NP)

    found = estimate(places, confidence=0.95)

    assert found.ips == found.logged
    assert found.effective == pytest.approx(len(places.clicked))


def test_a_place_that_is_looked_at_less_gives_its_items_more_credit(cases: list[Case]) -> None:
    looks = np.mean([attention(places) for places, *_ in cases], axis=0)

    assert looks[0] > 1 > looks[-1]
    assert looks[:3].mean() > looks[3:6].mean() > looks[6:].mean()


def test_a_log_without_explored_clicks_treats_all_places_equally(cases: list[Case]) -> None:
    places = replace(cases[0][0], clicked=np.zeros_like(cases[0][0].clicked))

    assert attention(places).tolist() == [1.0] * 10
    assert estimate(places, confidence=0.95).doubly_robust.mean == pytest.approx(0)
