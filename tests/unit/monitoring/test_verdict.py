"""Days against their reference: bad days, alarms, and their sentences."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from elcrec.config import MonitorConfig, parse_config
from elcrec.errors import UserError
from elcrec.monitoring.checks import SIDES, scores
from elcrec.monitoring.daily import Measured, Ratio
from elcrec.monitoring.verdict import Day, Judgement, Reference, judge, limits, may_ask

CONFIG = MonitorConfig()
SHARES = (0.4, 0.3, 0.2, 0.07, 0.03)
LENGTHS = {"1": 0.1, "2": 0.2, "4": 0.3, "8": 0.25, "16": 0.15}
RNG = np.random.default_rng(5)
NOISE = [RNG.normal(size=30) for _ in range(14)]


def ratio(value: float, noise: float = 0.0, users: float = 2000.0) -> Ratio:
    variance = value * (1 - value) / users
    return Ratio(value + noise * variance**0.5, variance, users)


def a_day(noise: Sequence[float] = (0.0,) * 30, *, users: int = 2000, **changes: Any) -> Measured:
    """A day of 2,000 users, whose numbers are off by so many standard errors."""
    usual = {"ctr": 0.1, "conversion": 0.5, "hit_rate": 0.3, "cold": 0.05, "overlap": 0.01}
    mix, lengths = changes.get("mix", SHARES), changes.get("lengths", LENGTHS)
    deciles = changes.get("deciles", [0.05 + 0.01 * place for place in range(10)])
    return Measured(
        users=users,
        answers=users,
        impressions=10 * users,
        items=100,
        ratios={
            name: ratio(changes.get(name, value), noise[place]) for place, (name, value) in enumerate(usual.items())
        },
        intents={str(k): ratio(share, noise[5 + k]) for k, share in enumerate(mix)},
        deciles={str(d): ratio(rate, noise[10 + d]) for d, rate in enumerate(deciles, start=1)},
        lengths={name: ratio(share, noise[21 + k]) for k, (name, share) in enumerate(lengths.items())},
    )


def together() -> Measured:
    """The reference days as one: the users of a day, fourteen times."""
    day = a_day()
    few = {name: Ratio(each.value, each.variance / 14, each.trials * 14) for name, each in day.ratios.items()}
    mix = {name: Ratio(each.value, each.variance / 14, each.trials * 14) for name, each in day.intents.items()}
    return Measured(
        users=2000, answers=28_000, impressions=280_000, items=100, ratios=few, intents=mix, deciles=day.deciles
    )


def dated(days: Sequence[Measured], *, first: int = 1, settled: bool = True) -> list[Day]:
    start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=first - 1)
    dates = [(start + timedelta(days=place)).date().isoformat() for place in range(len(days))]
    return [Day(date=date, settled=settled, measured=day) for date, day in zip(dates, days, strict=True)]


REFERENCE = Reference(days=tuple(dated([a_day(noise) for noise in NOISE])), pooled=together())


def judged(*days: Measured, settled: bool = True, **config: Any) -> list[Judgement]:
    return judge(MonitorConfig(**config), dated(days, first=15, settled=settled), REFERENCE)


def test_a_day_like_the_reference_is_fine() -> None:
    assert [(one.verdict, one.bad, one.reasons) for one in judged(a_day(), a_day(NOISE[3]))] == [("fine", (), ())] * 2


@pytest.mark.parametrize(
    ("changes", "check", "sentence"),
    [
        ({"ctr": 0.07}, "ctr", "Click-through rate fell: 10.1% -> 7.00%."),
        ({"conversion": 0.4}, "conversion", "Conversion fell: 50.4% -> 40.0%."),
        ({"hit_rate": 0.0}, "hit_rate", "Hit rate of the next event fell to 0% of what it was: 29.9% -> 0.00%."),
        ({"cold": 0.1}, "cold", "Share of users without a known history doubled: 4.96% -> 10.0%."),
        ({"overlap": 0.025}, "overlap", "Overlap between users more than doubled: 1.05% -> 2.50%."),
        ({"mix": (0.4, 0.3, 0.16, 0.07, 0.07)}, "intent 4", "Intent 4 more than doubled: 3.02% -> 7.00%."),
    ],
)
def test_the_second_bad_day_of_three_is_an_alarm_with_a_sentence(
    changes: Mapping[str, Any], check: str, sentence: str
) -> None:
    first, fine, second = judged(a_day(**changes), a_day(), a_day(**changes))
    assert [check in one.bad for one in (first, fine, second)] == [True, False, True]
    assert [check in one.alarms for one in (first, fine, second)] == [False, False, True]
    assert sentence in second.reasons


def test_two_bad_days_too_far_apart_are_not_an_alarm() -> None:
    assert {one.verdict for one in judged(a_day(ctr=0.07), a_day(), a_day(), a_day(ctr=0.07))} == {"fine"}


def test_bad_days_of_different_checks_do_not_add_up() -> None:
    assert {one.verdict for one in judged(a_day(conversion=0.4), a_day(cold=0.1))} == {"fine"}


def test_more_clicks_than_before_are_no_fault() -> None:
    good = a_day(ctr=0.2, conversion=0.8, hit_rate=0.6)
    assert {one.verdict for one in judged(good, good)} == {"fine"}


def test_a_mix_that_moves_a_little_everywhere_is_seen_as_a_whole() -> None:
    moved = a_day(mix=(0.36, 0.265, 0.235, 0.095, 0.045))
    last = judged(moved, moved)[-1]
    assert "mix" in last.alarms
    assert any(reason.startswith("The mix of intents has changed: ") for reason in last.reasons)


def test_shorter_histories_are_a_warning_with_a_sentence() -> None:
    shorter = a_day(lengths={"1": 0.14, "2": 0.24, "4": 0.3, "8": 0.21, "16": 0.11})
    last = judged(shorter, shorter)[-1]
    assert (last.alarms, last.verdict) == (("history",), "warn")
    assert last.reasons[0].startswith("The lengths of known histories have changed: ")
    assert judged(shorter, shorter, retrain_on=("history",))[-1].verdict == "retrain"


def test_a_reference_of_an_earlier_version_has_no_lengths_and_is_judged_without_them() -> None:
    old = tuple(structs.replace(day, measured=structs.replace(day.measured, lengths={})) for day in REFERENCE.days)
    reference = Reference(days=old, pooled=together())
    found = judge(CONFIG, dated([a_day(lengths={"1": 1.0})] * 2, first=15), reference)
    assert "history" not in {score.check for score in found[-1].scores}
    assert found[-1].verdict == "fine"


def test_scores_that_no_longer_predict_clicks_are_noticed_at_an_unchanged_rate() -> None:
    flat = a_day(deciles=[0.095] * 10)
    assert judged(flat, flat)[-1].alarms == ("calibration",)


def test_an_intent_that_was_never_there_appears() -> None:
    day = a_day(mix=(*SHARES[:4], 0.0, 0.03))
    last = judged(day, day)[-1]
    assert "Intent 5 appeared: 0.00% -> 3.00%." in last.reasons
    assert any(reason.startswith("Intent 4 fell to 0% of what it was") for reason in last.reasons)


def test_days_that_vary_more_than_their_users_explain_widen_the_margin() -> None:
    restless = [a_day([4 * value for value in noise]) for noise in NOISE]
    quiet = scores(a_day(ctr=0.08), [day.measured for day in REFERENCE.days], together())[0]
    wide = scores(a_day(ctr=0.08), restless, together())[0]
    assert quiet.check == wide.check == "ctr"
    assert abs(wide.score) < abs(quiet.score) / 2


def test_a_day_of_few_users_is_further_off_by_chance() -> None:
    few = a_day(users=200, ctr=0.08)
    few.ratios["ctr"] = ratio(0.08, users=200)
    score = scores(few, [day.measured for day in REFERENCE.days], together())[0]
    assert abs(score.score) < 1.2


def test_what_needs_events_waits_until_the_day_is_settled() -> None:
    day = a_day(ctr=0.02, conversion=0.1, hit_rate=0.0, cold=0.1, deciles=[0.02] * 10)
    assert {score.check for score in judged(day, settled=False)[0].scores} == {
        "cold",
        "overlap",
        "intent",
        "mix",
        "history",
    }
    assert judged(day, day, settled=False)[-1].alarms == ("cold",)


def test_a_day_of_too_few_users_is_not_judged_and_does_not_separate_bad_days() -> None:
    few = a_day(users=99, ctr=0.01)
    found = judged(a_day(ctr=0.07), few, few, few, a_day(ctr=0.07))
    assert [one.judged for one in found] == [True, False, False, False, True]
    assert found[-1].alarms[0] == "ctr"


def test_the_alarms_that_request_retraining_are_configured() -> None:
    assert judged(a_day(cold=0.1), a_day(cold=0.1))[-1].verdict == "warn"
    assert judged(a_day(cold=0.1), a_day(cold=0.1), retrain_on=("cold",))[-1].verdict == "retrain"
    assert judged(a_day(ctr=0.07), a_day(ctr=0.07), retrain_on=("cold",))[-1].verdict == "warn"
    assert judged(a_day(ctr=0.07), a_day(ctr=0.07))[-1].verdict == "retrain"
    assert judged(a_day(ctr=0.05), bad_days=1, of_days=1)[-1].verdict == "retrain"


def test_the_rate_of_false_alarms_is_shared_by_checks_and_intents() -> None:
    usual, strict = limits(CONFIG, REFERENCE), limits(MonitorConfig(false_alarms=0.005), REFERENCE)
    assert set(usual) == set(SIDES)
    assert all(strict[name] > usual[name] for name in SIDES)
    assert usual["intent"] > usual["cold"] > usual["ctr"]


def test_a_request_waits_for_the_cool_down() -> None:
    now = datetime(2026, 3, 20, tzinfo=UTC)
    asked = [now - timedelta(days=30), now - timedelta(days=7)]
    assert may_ask([], now, 7)
    assert may_ask(asked, now, 7)
    assert not may_ask(asked, now, 8)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"bad_days": 4}, "bad_days 4 is more than of_days 3"),
        ({"retrain_status": 2}, "take another, such as 3"),
        ({"reference_days": 2}, "monitor.reference_days"),
        ({"false_alarms": 0}, "monitor.false_alarms"),
        ({"retrain_on": ["clicks"]}, "monitor.retrain_on"),
    ],
)
def test_options_that_make_no_sense_are_refused(section: Mapping[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_config({"monitor": section})
