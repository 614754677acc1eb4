"""The confidence sequence against its definition, and on random walks whose drift it must rarely miss."""

from math import exp, log, sqrt

import numpy as np
import pytest

from elcrec.monitoring.daily import Ratio
from elcrec.monitoring.sequential import Estimate, estimate, half_width, narrowed

TAU, ALPHA = 0.05, 0.05


@pytest.mark.parametrize("variance", [1e-5, 1e-4, 0.01])
def test_at_the_end_of_the_interval_the_mixture_of_likelihood_ratios_is_one_in_alpha(variance: float) -> None:
    theta, information = half_width(variance, tau=TAU, alpha=ALPHA), 1 / variance
    density = np.linspace(-12 * TAU, 12 * TAU, 200_001)
    prior = np.exp(-(density**2) / (2 * TAU**2)) / (TAU * sqrt(2 * np.pi))
    ratio = np.exp(density * theta * information - density**2 * information / 2)

    assert np.trapezoid(prior * ratio, density) == pytest.approx(1 / ALPHA, rel=1e-3)


def test_a_walk_leaves_the_sequence_of_its_own_drift_in_at_most_the_stated_share_of_the_cases() -> None:
    rng, looks = np.random.default_rng(4), 400
    information = np.geomspace(100, 100_000, looks)
    steps = rng.normal(size=(2000, looks)) * np.sqrt(np.diff(information, prepend=0))
    off = np.abs(steps.cumsum(axis=1)) / information
    bounds = np.array([half_width(1 / each, tau=TAU, alpha=ALPHA) for each in information])
    ever, last = (off > bounds).any(axis=1).mean(), (off[:, -1] > 1.96 / np.sqrt(information[-1])).mean()

    assert ever <= ALPHA
    # The bound is not far too wide: it is reached in a good part of the allowed cases.
    assert ever > ALPHA / 4
    assert last == pytest.approx(0.05, abs=0.015)


def test_the_lift_is_that_of_the_rates_and_swapping_the_arms_inverts_it() -> None:
    one, other = Ratio(0.1, 1e-6, 1e5), Ratio(0.11, 2e-6, 1e5)

    there = estimate(one, other, expected=0.05, alpha=ALPHA)
    back = estimate(other, one, expected=0.05, alpha=ALPHA)

    assert there is not None
    assert back is not None
    assert there.lift == pytest.approx(0.1)
    assert (1 + there.low) * (1 + back.high) == pytest.approx(1)
    half = half_width(1e-6 / 0.1**2 + 2e-6 / 0.11**2, tau=log(1.05), alpha=ALPHA)
    assert there.high == pytest.approx(1.1 * exp(half) - 1)


@pytest.mark.parametrize("faulty", [Ratio(0.0, 1e-6, 10.0), Ratio(0.1, 0.0, 10.0)])
def test_without_a_rate_or_a_variance_nothing_is_estimated(faulty: Ratio) -> None:
    assert estimate(faulty, faulty, expected=0.05, alpha=ALPHA) is None


def test_with_very_few_clicks_the_interval_is_wide_but_finite() -> None:
    found = estimate(Ratio(0.001, 0.01, 10.0), Ratio(0.001, 0.01, 10.0), expected=0.05, alpha=ALPHA)

    assert found is not None
    assert (found.low, np.isfinite(found.high)) == (-1, True)


def test_intervals_share_what_those_before_them_left() -> None:
    ends = [(-0.2, 0.1), (-0.1, 0.3), (0.2, 0.4)]
    given = [Estimate(champion=0.1, challenger=0.1, lift=0.0, low=low, high=high) for low, high in ends]

    assert [(each.low, each.high) for each in narrowed(given)] == [(-0.2, 0.1), (-0.1, 0.1), (0.2, 0.1)]
