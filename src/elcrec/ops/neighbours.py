"""Neighbours of items: weights with which the items of a history foretell each item, from a regression.

Source: SLIM with feature selection (Ning and Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM
2011, section 4.3): each item is regressed on the items most similar to it. As in EASE (Steck, "Embarrassingly Shallow
Autoencoders for Sparse Data", WWW 2019) the penalty is quadratic and weights may be negative, so that the solution is
closed.

Axes: `N` items of all rows, `V` items, `T` target items of a block, `C` candidates of each, `P` pairs of these, `E`
weights, `K` neighbours kept.
"""

from bisect import bisect
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_MOST_PAIRS = 200_000_000
"""Pairs that rows may hold together before only the last items of long ones count: some 5 GB."""
_PAIRS_AT_ONCE = 10_000_000


class Weights(NamedTuple):
    """Weights of some pairs: how far an item of a history foretells a target, [E] each."""

    items: Ints
    targets: Ints
    weights: npt.NDArray[np.floating]

    @classmethod
    def joined(cls, parts: Iterable["Weights"]) -> "Weights":
        """Return the weights of all parts."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Counts(NamedTuple):
    """How many rows hold both of two items, [V + 1, V + 1], and each item, and with how many items each is, [V + 1]."""

    pairs_VV: csr_array
    items_V: Floats
    lengths_V: npt.NDArray[np.integer]

    def of(self, one_E: Ints, other_E: Ints) -> npt.NDArray[np.float64]:
        """Return the counts of some pairs, [E]."""
        if not len(one_E):  # of no pairs, SciPy returns no array
            return np.empty(0)
        # Counts are symmetric. The row of the item with fewer pairs is searched, which is several times faster.
        longer_E = self.lengths_V[one_E] > self.lengths_V[other_E]
        rows_E, columns_E = np.where(longer_E, other_E, one_E), np.where(longer_E, one_E, other_E)
        return np.asarray(self.pairs_VV[rows_E, columns_E], np.float64)

    def blocks(self, size: int, most_pairs: int = _PAIRS_AT_ONCE) -> list[Ints]:
        """Return the items of all rows, ascending, at most `size` at a time, fewer where they have many pairs."""
        known = np.flatnonzero(self.items_V)
        pairs = np.cumsum(self.lengths_V[known])
        changes = np.diff(np.arange(len(known)) // size) + np.diff(pairs // most_pairs)
        return np.split(known, np.flatnonzero(changes) + 1)


def co_occurrences(
    items_N: npt.NDArray[np.integer], offsets: Ints, num_items: int, most_pairs: int = _MOST_PAIRS
) -> Counts:
    """Count the rows that hold items; memory is that of the different pairs.

    Args:
        items_N: items from 1 to V, row after row, oldest first.
        offsets: start of each row, and the end of the last.
        num_items: V.
        most_pairs: pairs of the rows together, N^2 for one of N items. Where there are more, only the last items of
            each row count, as many as keep to this.
    """
    items_N, offsets = _recent(items_N, offsets, most_pairs)
    # Indices of 8 bytes would make everything below half as much slower.
    small = np.int32 if len(items_N) <= np.iinfo(np.int32).max else np.int64
    rows, shape = (items_N.astype(small), offsets.astype(small)), (len(offsets) - 1, num_items + 1)
    met_NV = csr_array((np.ones(len(items_N), np.float32), *rows), shape=shape)
    met_NV.sum_duplicates()
    met_NV.data.fill(1)
    pairs_VV = csr_array(met_NV.T @ met_NV)
    pairs_VV.sort_indices()
    return Counts(pairs_VV, pairs_VV.diagonal(), np.diff(pairs_VV.indptr))


def _recent(items_N: npt.NDArray[np.integer], offsets: Ints, most_pairs: int) -> tuple[npt.NDArray[np.integer], Ints]:
    """Return the last items of each row, as many as `most_pairs` allows, at least one, and their offsets."""
    lengths = np.diff(offsets)
    longest = int(lengths.max(initial=1))
    kept = max(
        bisect(range(1, longest + 1), most_pairs, key=lambda most: int((np.minimum(lengths, most) ** 2).sum())), 1
    )
    if kept == longest:
        return items_N, offsets
    recent_N = np.repeat(offsets[1:], lengths) - np.arange(len(items_N)) <= kept
    return items_N[recent_N], np.concatenate(([0], np.cumsum(np.minimum(lengths, kept))))


class Similar(NamedTuple):
    """The items most similar to some targets, and how similar they are; 0 where there are fewer, [T, C] each."""

    items_TC: Ints
    cosines_TC: npt.NDArray[np.float64]

    def weighted(self, targets_T: Ints, weights_TC: npt.NDArray[np.floating]) -> Weights:
        """Return the pairs of these items and their targets, with the given weights."""
        known_TC = self.items_TC > 0
        return Weights(self.items_TC[known_TC], np.repeat(targets_T, known_TC.sum(1)), weights_TC[known_TC])


def most_similar(counts: Counts, targets_T: Ints, most: int) -> Similar:
    """Find the items most similar to each target, by the cosine of the rows that hold them.

    Args:
        counts: the result of `co_occurrences`.
        targets_T: the items to which others are compared.
        most: number of similar items at most (C).
    """
    near = counts.pairs_VV[targets_T]
    row_E, item_E = np.repeat(np.arange(len(targets_T)), np.diff(near.indptr)), near.indices.astype(np.int64)
    other_E = item_E != targets_T[row_E]
    row_E, item_E, count_E = row_E[other_E], item_E[other_E], near.data[other_E]
    cosine_E = count_E / np.sqrt(counts.items_V[item_E].astype(np.float64) * counts.items_V[targets_T[row_E]])
    best, place = _best_of_each(row_E, cosine_E, item_E, most)
    shape, where = (len(targets_T), int(place.max(initial=0)) + 1), (row_E[best], place)
    similar = Similar(np.zeros(shape, np.int64), np.zeros(shape))
    similar.items_TC[where], similar.cosines_TC[where] = item_E[best], cosine_E[best]
    return similar


def foretell(counts: Counts, targets_T: Ints, candidates: int, penalty: float) -> Weights:
    """Regress items on the items most similar to them.

    Args:
        counts: the result of `co_occurrences`.
        targets_T: the items to foretell.
        candidates: number of similar items (C).
        penalty: weight of the squared weights, in rows.
    """
    similar = most_similar(counts, targets_T, candidates)
    similar_TC, width = similar.items_TC, similar.items_TC.shape[1]
    gram_TCC = np.zeros((*similar_TC.shape, width))
    gram_TCC[:, np.arange(width), np.arange(width)] = counts.items_V[similar_TC] + penalty
    one_P, other_P = np.triu_indices(width, 1)
    shared_TP = counts.of(similar_TC[:, one_P].ravel(), similar_TC[:, other_P].ravel()).reshape(
        len(targets_T), len(one_P)
    )
    gram_TCC[:, one_P, other_P] = gram_TCC[:, other_P, one_P] = shared_TP
    met_TC = counts.of(similar_TC.ravel(), np.repeat(targets_T, width)).reshape(similar_TC.shape)
    weights_TC = np.linalg.solve(gram_TCC, met_TC[:, :, None])[:, :, 0]
    return similar.weighted(targets_T, weights_TC.astype(np.float32))


def strongest(weights: Weights, num_items: int, kept: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Return the targets that each item foretells best, and their weights, [V + 1, K] each; 0 where there are fewer."""
    best, place = _best_of_each(weights.items, weights.weights, weights.targets, kept)
    targets_VK = np.zeros((num_items + 1, kept), np.int32)
    weights_VK = np.zeros((num_items + 1, kept), np.float32)
    where = (weights.items[best], place)
    targets_VK[where], weights_VK[where] = weights.targets[best], weights.weights[best]
    return targets_VK, weights_VK


def _best_of_each(
    owner_E: Ints, score_E: npt.NDArray[np.floating], item_E: Ints, most: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the highest scores of each owner are, and their places from 0; of equal ones the lower item."""
    order = np.lexsort((item_E, -score_E, owner_E))
    owners = owner_E[order]
    place = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return order[place < most], place[place < most]
