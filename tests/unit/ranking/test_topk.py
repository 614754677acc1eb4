import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.ranking.topk import top_k


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=5),
    k=st.integers(1, 6),
)
def test_equals_a_stable_full_sort_however_many_ties(scores: list[list[int]], k: int) -> None:
    table = np.array(scores, np.float32)

    values, indices = top_k(table, k)

    expected = np.argsort(-table, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(table, expected, axis=1))


@pytest.mark.parametrize("k", [1, 3])
def test_minus_infinity_comes_last(k: int) -> None:
    values, _ = top_k(np.array([[-np.inf, 1.0, -np.inf]], np.float32), k)

    assert values[0, 0] == 1.0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(600, 700),
    k=st.integers(1, 4),
    levels=st.sampled_from([3, 10_000]),
)
def test_equals_a_stable_full_sort_where_only_tiles_are_sorted(seed: int, width: int, k: int, levels: int) -> None:
    table = np.random.default_rng(seed).integers(levels, size=(4, width)).astype(np.float32)

    values, indices = top_k(table, k)

    expected = np.argsort(-table, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(table, expected, axis=1))
