import numpy as np
import pyarrow as pa
import pytest

from elcrec.data.profile import (
    describe,
    length_drift,
    length_histogram,
    popularity_drift,
    row_change,
    stability_index,
)


def log_of(counts: dict[str, int]) -> pa.Table:
    items = [item for item, count in counts.items() for _ in range(count)]
    users = [f"u{row // 5}" for row in range(len(items))]
    return pa.table({"user_id": users, "item_id": items})


BEFORE = {f"i{n}": 50 - n for n in range(40)}


def profile_of(counts: dict[str, int]) -> dict[str, object]:
    return describe(log_of(counts), dataset="sample", time="real", md5="0" * 32)


def test_the_index_equals_its_formula_and_is_zero_without_change() -> None:
    now, before = np.array([50.0, 50.0]), np.array([25.0, 75.0])
    expected = (0.5 - 0.25) * np.log(0.5 / 0.25) + (0.5 - 0.75) * np.log(0.5 / 0.75)
    assert stability_index(now, before) == pytest.approx(expected)
    assert stability_index(before * 3, before) == 0.0


def test_a_log_has_not_drifted_from_itself() -> None:
    previous = profile_of(BEFORE)
    assert popularity_drift(log_of(BEFORE), previous) == pytest.approx(0.0, abs=1e-9)
    assert length_drift(profile_of(BEFORE), previous) == 0.0
    assert row_change(profile_of(BEFORE), previous) == 0.0


def test_new_items_and_a_turned_ranking_are_large_drifts() -> None:
    previous = profile_of(BEFORE)
    assert popularity_drift(log_of({f"new{n}": 20 for n in range(40)}), previous) > 1
    assert popularity_drift(log_of({f"i{n}": 1 + 3 * n for n in range(40)}), previous) > 0.25


def test_sampling_noise_is_a_small_drift() -> None:
    random = np.random.default_rng(0)
    shares = np.arange(50, 10, -1) / np.arange(50, 10, -1).sum()
    drawn = dict(zip(BEFORE, random.multinomial(1000, shares).tolist(), strict=True))
    assert popularity_drift(log_of(drawn), profile_of(BEFORE)) < 0.1


def test_longer_histories_are_a_drift_of_length() -> None:
    long = {"i0": 500}
    now = describe(
        pa.table({"user_id": ["u"] * 500, "item_id": ["i0"] * 500}),
        dataset="sample",
        time="real",
        md5="0" * 32,
    )
    assert length_drift(now, profile_of(long)) > 1


def test_lengths_fall_into_the_documented_classes() -> None:
    assert length_histogram(np.array([1, 2, 5, 6, 7, 8, 100, 101, 9999])).tolist() == [
        1,
        1,
        0,
        0,
        1,
        2,
        1,
        0,
        0,
        0,
        1,
        2,
    ]


def test_items_of_equal_count_are_profiled_in_the_order_of_their_ids() -> None:
    shares = profile_of({"b": 2, "a": 2, "c": 4})["item_shares"]
    assert list(shares.items()) == [("c", 0.5), ("a", 0.25), ("b", 0.25)]
