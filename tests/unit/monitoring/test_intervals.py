import pytest

from elcrec.monitoring.intervals import wilson


def test_intervals_are_those_of_newcombes_examples() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: method 3, without continuity correction.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_without_a_trial_the_interval_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
