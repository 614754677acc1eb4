"""Spectral vectors of items: items that stand near each other in sequences have similar directions.

Source: Ng, Jordan and Weiss, "On Spectral Clustering: Analysis and an algorithm" (NIPS 2001), on the graph that joins
items which follow each other within a few places.

Axes: `N` items of all rows, row after row, `V` items, `E` pairs of items, `D` size of a vector.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

_DENSE_UP_TO = 500
"""Number of items up to which all eigenvectors are computed: the solver needs more items than twice the vectors."""


def spectral_vectors(items_N: Ints, row_N: Ints, num_items: int, size: int, reach: int) -> Floats:
    """Return the leading eigenvectors of the normalised item graph, the largest eigenvalue first, [V, D].

    An edge weighs as often as its two items stand at most `reach` places apart in a row. An item without edges has the
    vector 0. With fewer than D items, the last entries are 0.

    Args:
        items_N: items from 0 to V - 1.
        row_N: row of each, in ascending order.
        num_items: V.
        size: D.
        reach: largest distance in places.
    """
    graph_VV = _graph(items_N, row_N, num_items, reach)
    joined = np.flatnonzero(graph_VV.sum(axis=0))
    graph_VV = graph_VV[joined][:, joined]
    scale = diags_array(graph_VV.sum(axis=0) ** -0.5)
    vectors_VD = np.zeros((num_items, size))
    vectors_VD[joined] = _leading(scale @ graph_VV @ scale, size)
    return vectors_VD


def _graph(items_N: Ints, row_N: Ints, num_items: int, reach: int) -> csr_array:
    """Return the symmetric number of times that two different items stand near each other, [V, V]."""
    one_way_VV = csr_array((num_items, num_items))
    # One distance after another, so that memory depends on the different pairs, not on all that occur within the reach.
    for distance in range(1, reach + 1):
        earlier_E, later_E = items_N[:-distance], items_N[distance:]
        near_E = (row_N[:-distance] == row_N[distance:]) & (earlier_E != later_E)
        ends = (earlier_E[near_E], later_E[near_E])
        one_way_VV += csr_array((np.ones(len(ends[0])), ends), shape=(num_items, num_items))
    return one_way_VV + one_way_VV.T


def _leading(matrix_VV: csr_array, size: int) -> Floats:
    """Return the eigenvectors of the largest eigenvalues, the largest first, [V, D]."""
    count = matrix_VV.shape[0]
    if count <= max(_DENSE_UP_TO, 2 * size):
        vectors_VE = np.linalg.eigh(matrix_VV.toarray())[1]
    else:
        # A given start makes the result the same every time.
        vectors_VE = eigsh(matrix_VV, k=size, which="LA", v0=np.ones(count))[1]
    leading_VE: Floats = vectors_VE[:, ::-1][:, :size]
    return np.pad(leading_VE, ((0, 0), (0, size - leading_VE.shape[1])))
