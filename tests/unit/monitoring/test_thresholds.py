"""Limits follow from the stated rate of false alarms."""

from itertools import product

import numpy as np
import pytest

from elcrec.monitoring.thresholds import HORIZON, alarm_rate, limit

PLAN = {"reference_days": 7, "bad_days": 2, "of_days": 3}


def test_the_limit_of_one_day_is_the_quantile_of_students_t() -> None:
    one_day = {"reference_days": 7, "bad_days": 1, "of_days": 1, "horizon": 1}
    assert alarm_rate(2.447, sides=2, **one_day) == pytest.approx(0.05, rel=1e-3)
    assert alarm_rate(1.943, sides=1, **one_day) == pytest.approx(0.05, rel=1e-3)


def test_at_its_limit_a_test_spends_its_budget() -> None:
    for budget in (0.05, 0.006, 0.0002):
        assert alarm_rate(limit(budget, sides=2, **PLAN), sides=2, **PLAN) == pytest.approx(budget, rel=1e-2)


def test_the_chance_of_n_bad_days_of_m_is_that_of_all_sequences() -> None:
    # Of infinitely many reference days nothing is shared, so days are independent.
    chance, days = 0.2, 7
    known = {"reference_days": 10_000_000, "bad_days": 2, "of_days": 3}
    alarms = 0.0
    for bad in product((0, 1), repeat=days):
        if any(sum(bad[max(0, end - 3) : end]) >= 2 for end in range(1, days + 1)):
            alarms += chance ** sum(bad) * (1 - chance) ** (days - sum(bad))
    assert alarm_rate(0.8416212, sides=1, horizon=days, **known) == pytest.approx(alarms, rel=1e-3)


def test_months_of_normal_days_raise_as_many_alarms_as_are_stated() -> None:
    rng, stated, months = np.random.default_rng(1), 0.1, 40_000
    beyond = limit(stated, sides=2, **PLAN)
    reference = rng.normal(size=(months, 7))
    error = reference.std(axis=1, ddof=1) * np.sqrt(1 + 1 / 7)
    scores = (rng.normal(size=(HORIZON, months)) - reference.mean(axis=1)) / error
    bad = np.abs(scores) > beyond
    alarms = (bad[2:].astype(int) + bad[1:-1] + bad[:-2] >= 2).any(axis=0)
    assert alarms.mean() == pytest.approx(stated, abs=0.006)


def test_fewer_reference_days_and_less_budget_make_a_wider_limit() -> None:
    usual = limit(0.01, sides=2, **PLAN)
    assert limit(0.01, sides=2, **{**PLAN, "reference_days": 4}) > usual > limit(0.02, sides=2, **PLAN)
    assert limit(0.01, sides=2, **{**PLAN, "bad_days": 1}) > usual > limit(0.01, sides=1, **PLAN)
