"""Neighbours of items: the regression against the normal equations solved one item at a time."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from elcrec.data.ragged import Ragged
from elcrec.ops.neighbours import Counts, Weights, co_occurrences, foretell, most_similar, strongest

NUM_ITEMS = 12
PENALTY = 2.5


def _rows(seed: int = 0, users: int = 60) -> list[list[int]]:
    """Histories of all items but 12, some of them with repetitions; item 11 is always alone."""
    random = np.random.default_rng(seed)
    return [*(random.integers(1, 11, random.integers(1, 8)).tolist() for _ in range(users)), [11], [11, 11], []]


def _met(rows: list[list[int]]) -> np.ndarray:
    met = np.zeros((len(rows), NUM_ITEMS + 1))
    for row, items in enumerate(rows):
        met[row, items] = 1
    return met


def _counts(rows: list[list[int]]) -> Counts:
    histories = Ragged.from_rows(rows)
    return co_occurrences(histories.values, histories.offsets, NUM_ITEMS)


def _found(rows: list[list[int]], candidates: int) -> Weights:
    counts = _counts(rows)
    return foretell(counts, np.flatnonzero(counts.items_V), candidates, PENALTY)


def test_counts_are_rows_that_hold_both_items_however_often() -> None:
    met = _met(_rows())
    assert_array_equal(_counts(_rows()).pairs_VV.toarray(), met.T @ met)
    assert_array_equal(_counts(_rows()).items_V, met.sum(0))


@pytest.mark.parametrize(("most_pairs", "kept"), [(49, 6), (48, 5), (29, 4), (28, 3), (21, 2), (11, 1), (0, 1)])
def test_of_long_rows_only_the_last_items_count(most_pairs: int, kept: int) -> None:
    rows = [[1, 2, 3, 4, 5, 6], [7, 1, 2], [], [5, 3]]
    fewer = Ragged.from_rows([[1, 2, 3, 4, 5, 6][-kept:], [7, 1, 2][-kept:], [], [5, 3][-kept:]])
    histories = Ragged.from_rows(rows)
    found = co_occurrences(histories.values, histories.offsets, NUM_ITEMS, most_pairs)
    expected = co_occurrences(fewer.values, fewer.offsets, NUM_ITEMS)
    assert_array_equal(found.pairs_VV.toarray(), expected.pairs_VV.toarray())
    assert_array_equal(found.items_V, expected.items_V)


@pytest.mark.parametrize("most_pairs", [1, 8, 30, 1_000])
def test_blocks_have_few_items_and_few_pairs(most_pairs: int) -> None:
    counts = _counts(_rows())
    blocks = counts.blocks(4, most_pairs)
    assert_array_equal(np.concatenate(blocks), np.flatnonzero(counts.items_V))
    pairs_V = np.diff(counts.pairs_VV.indptr)
    for block in blocks:
        assert 0 < len(block) <= 4
        assert pairs_V[block].sum() <= most_pairs + pairs_V.max()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_most_similar_items_are_those_of_the_largest_cosines(most: int) -> None:
    met = _met(_rows())
    gram = met.T @ met
    targets = np.array([3, 11, 1, 12])
    found = most_similar(_counts(_rows()), targets, most)
    for target, items, cosines in zip(targets, *found, strict=True):
        others = [item for item in range(1, NUM_ITEMS + 1) if item != target and gram[item, target]]
        expected = {item: gram[item, target] / np.sqrt(gram[item, item] * gram[target, target]) for item in others}
        chosen = sorted(others, key=lambda item: (-expected[item], item))[:most]
        assert items[items > 0].tolist() == chosen
        assert_allclose(cosines[items > 0], [expected[item] for item in chosen])
        assert not cosines[items == 0].any()


@pytest.mark.parametrize("candidates", [1, 3, 100])
def test_weights_solve_the_regression_of_each_item_on_those_most_similar(candidates: int) -> None:
    met = _met(_rows())
    gram, expected = met.T @ met, {}
    for target in range(1, 11):
        others = [item for item in range(1, NUM_ITEMS + 1) if item != target and gram[item, target]]
        cosines = {item: gram[item, target] / np.sqrt(gram[item, item] * gram[target, target]) for item in others}
        chosen = sorted(others, key=lambda item: (-cosines[item], item))[:candidates]
        normal = met[:, chosen].T @ met[:, chosen] + PENALTY * np.eye(len(chosen))
        solved = np.linalg.solve(normal, met[:, chosen].T @ met[:, target])
        expected |= {(item, target): weight for item, weight in zip(chosen, solved, strict=True)}

    found = _found(_rows(), candidates)

    pairs = dict(zip(zip(found.items.tolist(), found.targets.tolist(), strict=True), found.weights, strict=True))
    assert pairs.keys() == expected.keys()
    assert_allclose([pairs[pair] for pair in expected], list(expected.values()), rtol=1e-5, atol=1e-7)


def test_blocks_of_items_give_what_all_at_once_give() -> None:
    counts = _counts(_rows())
    known = np.flatnonzero(counts.items_V)
    parts = Weights.joined(foretell(counts, block, 3, PENALTY) for block in np.split(known, [4, 5]))
    whole = foretell(counts, known, 3, PENALTY)
    for ours, theirs in zip(strongest(parts, NUM_ITEMS, 2), strongest(whole, NUM_ITEMS, 2), strict=True):
        assert_array_equal(ours, theirs)


def test_an_item_that_is_always_alone_or_never_met_has_no_neighbours_and_is_none() -> None:
    items, weights = strongest(_found(_rows(), 100), NUM_ITEMS, 4)
    assert not items[[0, 11, 12]].any()
    assert not weights[[0, 11, 12]].any()
    assert not np.isin(items, (11, 12)).any()


def test_the_targets_kept_are_those_that_an_item_foretells_best() -> None:
    found = _found(_rows(), 100)
    items, weights = strongest(found, NUM_ITEMS, 3)
    for item in range(1, 11):
        own = found.items == item
        order = np.lexsort((found.targets[own], -found.weights[own]))[:3]
        assert_array_equal(items[item], found.targets[own][order])
        assert_array_equal(weights[item], found.weights[own][order])


def test_more_are_kept_than_there_are() -> None:
    items, weights = strongest(_found([[1, 2]] * 5, 100), NUM_ITEMS, 3)
    assert_array_equal(items[1], [2, 0, 0])
    assert_allclose(weights[1], [5 / (5 + PENALTY), 0, 0])
