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

_TINY = np.finfo(np.float32).tiny
_POINTS_A_LIST = 64
"""Largest number of items per list for k-means, which then takes seconds for a million items."""


class ItemIndex:
    """Item vectors in lists around centres; a search reads the lists whose centres match best."""

    def __init__(
        self, vectors_VD: Floats, config: SearchConfig, *, added_V: Floats | None = None, threads: int
    ) -> None:
        """Build the index, which holds a copy of the vectors.

        Args:
            vectors_VD: vector of each item, [V + 1, D]; the row of padding is left out.
            config: the number of lists to read, and the number of candidates.
            added_V: what is added to every product with an item's vector, [V + 1]; `None` for nothing.
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
        items_VD, self._last = np.ascontiguousarray(vectors_VD[1:], np.float32), np.empty(0, np.float32)
        if added_V is not None and added_V.any():
            # One more number of each vector, whose product with the last one of a user is what is added. As large as
            # the others, it does not decide alone which items are in a list together.
            self._last = np.array([added_V[1:].std() / max(items_VD.std(), _TINY)], np.float32)
            items_VD = np.concatenate([items_VD, added_V[1:, None] / self._last], axis=1)
        self._vectors_VD, self._oversampling = items_VD, config.oversampling
        self.lists = max(1, math.isqrt(len(items_VD)))
        self.probes = min(config.probes, self.lists)
        self._index = _inverted_file(faiss, items_VD, self.lists, self.probes)

    def candidates(self, vector_D: Floats, wanted: int, met: int, also: Items | None = None) -> tuple[Items, Floats]:
        """Return the candidates for an answer, ordered by index, and their scores, [C] each.

        Args:
            vector_D: vector of the user, [D].
            wanted: number of items in the answer.
            met: number of items that must not be in it.
            also: further candidates.
        """
        number = min(self._oversampling * wanted + met, len(self._vectors_VD))
        vector_D = np.concatenate([vector_D, self._last])
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
