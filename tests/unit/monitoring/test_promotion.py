"""The outcome of a test of two versions, with simulated returning users."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from elcrec.config import PromoteConfig
from elcrec.monitoring.arms import Day
from elcrec.monitoring.daily import Ratio
from elcrec.monitoring.promotion import decide, split_chance
from tests.support.tests_of_two import Test, ended

CONFIG = PromoteConfig(min_users=500)


def outcomes(tests: Sequence[Test]) -> Counter[str]:
    return Counter(ended(test, CONFIG).outcome for test in tests)


def test_two_equal_versions_are_rarely_distinguished_even_with_daily_looks() -> None:
    found = outcomes([Test(seed=seed, users=2500, days=21) for seed in range(60)])

    # Of 60 tests three are expected at the stated rate of 5 %, and more than seven in one of 50 such runs.
    assert found["promote"] + found["drop"] <= 7
    assert found["refused"] == 0


def test_a_real_lift_is_found_and_a_real_loss_too() -> None:
    better = outcomes([Test(seed=seed, users=4000, lift=0.25) for seed in range(8)])
    worse = outcomes([Test(seed=seed, users=4000, lift=-0.25) for seed in range(8)])

    assert better["promote"] >= 7
    assert worse["drop"] >= 7


def test_a_small_share_is_enough_where_users_are_many() -> None:
    found = ended(Test(seed=3, users=12_000, share=0.1, lift=0.25), CONFIG)

    assert found.outcome == "promote"
    assert found.looks[-1].users["challenger"] < found.looks[-1].users["champion"] / 5


@pytest.mark.parametrize(
    ("number", "users", "needs"),
    [(5, 500, "5 days, "), (10, 5000, "users in the smaller arm: 7 days and 5,000 users per arm are needed")],
)
def test_no_decision_is_made_before_the_minimum_sample(number: int, users: int, needs: str) -> None:
    days = Test(seed=1, users=8000, lift=0.5).played()[:number]

    found = decide(PromoteConfig(min_users=users), days, 0, share=0.5)

    assert found.outcome == "collect"
    assert needs in found.reason
    assert not found.looks[-1].counts


def test_without_a_whole_day_it_continues_collecting() -> None:
    found = decide(CONFIG, [], 0, share=0.5)

    assert (found.outcome, found.looks) == ("collect", ())


def test_another_split_than_the_stated_one_refuses_a_decision_and_names_both_shares() -> None:
    days = Test(seed=1, users=4000, share=0.4, lift=0.5).played()

    found = decide(CONFIG, days, 0, share=0.5)

    assert found.outcome == "refused"
    assert found.split is not None
    assert found.split < 0.001
    assert "users are in the challenger's arm, not 50.0%" in found.reason
    assert decide(CONFIG, days, 0, share=0.4).outcome == "promote"


def test_users_in_both_arms_refuse_a_decision() -> None:
    days = Test(seed=1, users=4000, lift=0.5).played()

    assert decide(CONFIG, days, 20, share=0.5).outcome == "promote"
    found = decide(CONFIG, days, 60, share=0.5)
    assert (found.outcome, found.reason.split(":")[0].split(" of ")[0]) == ("refused", "60")


def test_the_chance_of_a_split_is_that_of_chi_squared() -> None:
    # 10 % more in one half: (5^2 + 5^2) / 50 = 1, and 6.635 is the 99 % quantile.
    assert split_chance({"champion": 55, "challenger": 45}, 0.5) == pytest.approx(0.3173, abs=1e-4)
    assert split_chance({"champion": 5129, "challenger": 4871}, 0.5) == pytest.approx(0.0099, abs=1e-4)
    assert split_chance({"champion": 0, "challenger": 0}, 0.5) == 1


def day(rates: Mapping[str, tuple[float, float]], number: int = 0) -> Day:
    """A day with rates of champion and challenger that are known well."""
    known = {
        name: {"champion": Ratio(one, (one / 300) ** 2, 1e5), "challenger": Ratio(two, (two / 300) ** 2, 1e5)}
        for name, (one, two) in rates.items()
    }
    return Day(day=number, users={"champion": 9000, "challenger": 9000}, rates=known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ctr", "conversion", "outcome", "reason"),
    [
        (0.12, 0.50, "promote", "the challenger is better: click-through rate 10.00% -> 12.00%, lift +20.0%"),
        (0.12, 0.48, "collect", "better: click-through rate"),
        (0.12, 0.40, "drop", "the challenger is worse by more than 5.0%: conversion 50.00% -> 40.00%, lift -20.0%"),
        (0.08, 0.50, "drop", "the challenger is worse: click-through rate 10.00% -> 8.00%, lift -20.0%"),
        (0.10, 0.50, "collect", "not decided yet: click-through rate 10.00% -> 10.00%, lift +0.0%"),
        (0.00, 0.50, "collect", "nothing was counted for the click-through rate in one of the arms"),
    ],
)
def test_a_promotion_needs_a_rise_and_every_guard(ctr: float, conversion: float, outcome: str, reason: str) -> None:
    days = [day({"ctr": (0.10, ctr), "conversion": (0.5, conversion)}, number) for number in range(7)]

    found = decide(CONFIG, days, 0, share=0.5)

    assert found.outcome == outcome
    assert reason in found.reason


def test_a_guard_without_a_count_prevents_a_promotion() -> None:
    days = [day({"ctr": (0.10, 0.12)}, number) for number in range(7)]

    found = decide(CONFIG, days, 0, share=0.5)
    assert (found.outcome, found.reason.endswith("nothing was counted")) == ("collect", True)
    without = msgspec.structs.replace(CONFIG, guards={})
    assert decide(without, days, 0, share=0.5).outcome == "promote"


def test_a_lift_that_changes_its_sign_is_not_a_decision() -> None:
    rates = [(0.10, 0.12)] * 7 + [(0.10, 0.08)]
    days = [day({"ctr": each, "conversion": (0.5, 0.5)}, number) for number, each in enumerate(rates)]

    found = decide(CONFIG, days, 0, share=0.5)

    assert found.outcome == "collect"
    assert "intervals of early and late looks do not overlap" in found.reason
