"""An index of item vectors for approximate search: an inverted file of Faiss.

Axes: `V` items, `D` hidden size, `C` candidates.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from elcrec.config import SearchConfig
from elcrec.errors import UserError

Items = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_POINTS_A_LIST = 64
"""Largest number of items per list for k-means, which then takes seconds for a million items."""


class ItemIndex:
    """Item vectors in lists around centres; a search reads the lists whose centres match best."""

    def __init__(self, vectors_VD: Floats, config: SearchConfig, *, threads: int) -> None:
        """Build the index, which holds a copy of the vectors.

        Args:
            vectors_VD: vector of each item, [V + 1, D]; the row of padding is left out.
            config: the number of lists to read, and the number of candidates.
            threads: number of threads for building; a search, for one user, takes one.

        Raises:
            UserError: the extra `index` is not installed.
        """
        try:
            import faiss  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            fix = "pip install 'elcrec[index]', or set evaluate.search.kind=exact, then evaluate and push again"
            raise UserError("an approximate search needs the extra index", fix=fix) from error
        faiss.omp_set_num_threads(threads)
        items_VD = np.ascontiguousarray(vectors_VD[1:], np.float32)
        self._vectors_VD, self._oversampling = items_VD, config.oversampling
        self.lists = max(1, math.isqrt(len(items_VD)))
        self.probes = min(config.probes, self.lists)
        self._index = _inverted_file(faiss, items_VD, self.lists, self.probes)

    def candidates(self, vector_D: Floats, wanted: int, met: int, also: Items | None = None) -> tuple[Items, Floats]:
        """Return the candidates for an answer, ordered by index, and their scores, [C] each.

        Args:
            vector_D: vector of the user.
            wanted: number of items in the answer.
            met: number of items that must not be in it.
            also: further candidates.
        """
        number = min(self._oversampling * wanted + met, len(self._vectors_VD))
        _, (found,) = self._index.search(vector_D[None], number)
        rows_C = np.sort(found[found >= 0]) if also is None else np.union1d(found[found >= 0], also - 1)
        scores_C: Floats = self._vectors_VD[rows_C] @ vector_D
        return rows_C + 1, scores_C


def _inverted_file(faiss: Any, items_VD: Floats, lists: int, probes: int) -> Any:
    index = faiss.index_factory(items_VD.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _POINTS_A_LIST
    index.train(items_VD)
    index.add(items_VD)
    index.nprobe = probes
    return index
