"""Counts of items: against counting by hand."""

from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.testing import assert_allclose

from elcrec.data.ragged import Ragged
from elcrec.ops.counts import followers, late_popularity

NUM_ITEMS = 7
ROWS = [[1, 2, 3, 2, 3], [], [4], [2, 3, 4], [5, 5, 6], [3, 2]]


def _flat() -> tuple[np.ndarray, np.ndarray, int]:
    rows = Ragged.from_rows(ROWS)
    return rows.values, rows.offsets, NUM_ITEMS


def test_an_item_follows_another_within_a_row_alone() -> None:
    expected = Counter(pair for row in ROWS for pair in pairwise(row))
    found = followers(*_flat())
    pairs = [*zip(found.items.tolist(), found.targets.tolist(), strict=True)]
    assert {*pairs} == {*expected}
    assert len(pairs) == len(expected)
    assert_allclose(found.weights, [np.log(1 + expected[pair]) for pair in pairs], rtol=1e-6)


def test_popularity_halves_with_each_later_item_and_adds_up_to_the_number_of_items() -> None:
    counts = np.zeros(NUM_ITEMS + 1)
    for row in ROWS:
        for age, item in enumerate(reversed(row)):
            counts[item] += 0.5**age
    total = sum(map(len, ROWS))
    expected = np.log(1 + counts * total / counts.sum())
    found = late_popularity(*_flat())
    assert found[0] == 0
    assert_allclose(found[1:], expected[1:] - expected[1:].mean(), rtol=1e-5, atol=1e-6)


def test_without_items_nothing_follows_and_nothing_is_popular() -> None:
    nothing = Ragged.empty(2)
    assert len(followers(nothing.values, nothing.offsets, NUM_ITEMS).items) == 0
    assert not late_popularity(nothing.values, nothing.offsets, NUM_ITEMS).any()
