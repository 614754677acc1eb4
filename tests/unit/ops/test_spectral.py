"""The spectral vectors of items: eigenvectors of the graph of items that stand near each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from elcrec.ops import spectral
from elcrec.ops.spectral import spectral_vectors


def _plain_graph(rows: list[list[int]], num_items: int, reach: int) -> np.ndarray:
    """The normalised graph, one pair at a time."""
    graph = np.zeros((num_items, num_items))
    for row in rows:
        for place, item in enumerate(row):
            for other in row[max(0, place - reach) : place]:
                graph[item, other] += item != other
                graph[other, item] += item != other
    roots = np.array([degree**-0.5 if degree else 0.0 for degree in graph.sum(0)])
    return roots[:, None] * graph * roots


def _vectors(rows: list[list[int]], num_items: int, size: int, reach: int = 2) -> np.ndarray:
    items = np.array([item for row in rows for item in row])
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return spectral_vectors(items, owners, num_items, size, reach)


def _walks(groups: int, per_group: int, seed: int = 0) -> list[list[int]]:
    """Rows that mostly stay in one group of items."""
    generator, rows = np.random.default_rng(seed), []
    for row in range(60 * groups):
        group = np.where(generator.random(12) < 0.9, row % groups, generator.integers(0, groups, 12))
        rows.append([int(each) for each in group * per_group + generator.integers(0, per_group, 12)])
    return rows


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_they_are_eigenvectors_of_the_largest_eigenvalues_of_the_graph_of_near_items(reach: int) -> None:
    rows, size = _walks(groups=4, per_group=8), 5
    vectors = _vectors(rows, 33, size, reach)  # item 32 is in no row
    graph = _plain_graph(rows, 33, reach)
    largest = np.sort(np.linalg.eigvalsh(graph[:32, :32]))[::-1][:size]
    assert_allclose(graph @ vectors, vectors * largest, atol=1e-12)
    assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-12)
    assert not vectors[32].any()


def test_a_large_graph_has_the_same_ones_up_to_their_sign_and_the_same_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = _walks(groups=4, per_group=40)
    dense = _vectors(rows, 161, 4)
    monkeypatch.setattr(spectral, "_DENSE_UP_TO", 0)
    sparse, again = _vectors(rows, 161, 4), _vectors(rows, 161, 4)
    assert_allclose(np.abs(sparse), np.abs(dense), atol=1e-8)
    assert np.array_equal(sparse, again)


def test_items_of_one_group_have_one_direction() -> None:
    vectors = _vectors(_walks(groups=4, per_group=8), 32, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T).reshape(4, 8, 4, 8)
    within = np.stack([cosines[group, :, group] for group in range(4)])
    across = cosines[0, :, 1:]
    assert within.min() > 0.8
    assert across.max() < 0.3


def test_fewer_items_than_vectors_leave_zeros_and_rows_of_one_item_make_no_edge() -> None:
    vectors = _vectors([[0, 1], [1, 2], [3], [3, 3]], 4, 6)
    assert vectors.shape == (4, 6)
    assert not vectors[:, 4:].any()
    assert not vectors[3].any()
