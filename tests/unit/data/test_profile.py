from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from elcrec.data.engine import Session
from elcrec.data.profile import (
    Profile,
    count_popular_before,
    describe,
    length_drift,
    length_histogram,
    measure,
    popularity_drift,
    row_change,
    stability_index,
)
from tests.support.engines import ENGINE

BEFORE = {f"i{n}": 50 - n for n in range(40)}


@contextmanager
def session_of(folder: Path, counts: dict[str, int], length: int = 5) -> Iterator[Session]:
    """The view `accepted` of a log in which items have these counts and users so many events."""
    items = [item for item, count in counts.items() for _ in range(count)]
    users = [f"u{row // length}" for row in range(len(items))]
    with ENGINE.session(folder / "out") as session:
        session.enter("accepted", pa.table({"user_id": users, "item_id": items, "micros": range(len(items))}))
        yield session


def profile_of(folder: Path, counts: dict[str, int], length: int = 5) -> Profile:
    with session_of(folder, counts, length) as session:
        return describe(measure(session), dataset="sample", time="real", md5="0" * 32)


def drift(folder: Path, counts: dict[str, int], previous: Profile) -> float:
    with session_of(folder, counts) as session:
        measure(session)
        return popularity_drift(count_popular_before(session, previous), previous)


def test_the_index_equals_its_formula_and_is_zero_without_change() -> None:
    now, before = np.array([50.0, 50.0]), np.array([25.0, 75.0])
    expected = (0.5 - 0.25) * np.log(0.5 / 0.25) + (0.5 - 0.75) * np.log(0.5 / 0.75)
    assert stability_index(now, before) == pytest.approx(expected)
    assert stability_index(before * 3, before) == 0.0


def test_a_log_has_not_drifted_from_itself(tmp_path: Path) -> None:
    previous = profile_of(tmp_path, BEFORE)
    assert drift(tmp_path, BEFORE, previous) == pytest.approx(0.0, abs=1e-9)
    assert length_drift(profile_of(tmp_path, BEFORE), previous) == 0.0
    assert row_change(profile_of(tmp_path, BEFORE), previous) == 0.0


def test_new_items_and_a_reversed_ranking_are_large_drifts(tmp_path: Path) -> None:
    previous = profile_of(tmp_path, BEFORE)
    assert drift(tmp_path, {f"new{n}": 20 for n in range(40)}, previous) > 1
    assert drift(tmp_path, {f"i{n}": 1 + 3 * n for n in range(40)}, previous) > 0.25


def test_sampling_noise_is_a_small_drift(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shares = np.arange(50, 10, -1) / np.arange(50, 10, -1).sum()
    drawn = dict(zip(BEFORE, random.multinomial(1000, shares).tolist(), strict=True))
    assert drift(tmp_path, drawn, profile_of(tmp_path, BEFORE)) < 0.1


def test_longer_histories_are_a_drift_of_length(tmp_path: Path) -> None:
    long = profile_of(tmp_path, {"i0": 500}, length=500)
    assert length_drift(long, profile_of(tmp_path, {"i0": 500})) > 1


def test_lengths_fall_into_the_documented_classes() -> None:
    lengths = [1, 2, 5, 6, 7, 8, 100, 101, 9999]
    users = [1, 2, 1, 1, 1, 1, 1, 1, 3]
    found = length_histogram(pa.table({"events": lengths, "users": users})).tolist()
    assert found == [1, 2, 0, 0, 1, 2, 1, 0, 0, 0, 1, 4]


def test_items_of_equal_count_are_profiled_in_the_order_of_their_ids(tmp_path: Path) -> None:
    shares = profile_of(tmp_path, {"b": 2, "a": 2, "c": 4})["item_shares"]
    assert list(shares.items()) == [("c", 0.5), ("a", 0.25), ("b", 0.25)]
