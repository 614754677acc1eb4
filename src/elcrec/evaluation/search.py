"""The recall of approximate search, compared with exact search.

Axes: `N` users, `K` places of an answer.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Lists = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SearchFindings:
    """Comparison of the answers of both searches to the same users.

    Attributes:
        users: number of users.
        recall: mean share of the exact answer in the approximate one.
        complete: share of the users whose two answers have the same items.
        lists: number of parts of the catalogue.
        probes: number of parts that a search reads.
        oversampling: number of candidates per item of an answer.
    """

    users: int
    recall: float
    complete: float
    lists: int
    probes: int
    oversampling: int

    def numbers(self) -> dict[str, float]:
        """Return the numbers of metrics.json."""
        return {"search_recall@20": self.recall, "search_complete@20": self.complete, "search_users": self.users}


def recall_of(found: Lists, exact: Lists) -> npt.NDArray[np.float64]:
    """Return the share of each exact answer that is found, 1 for an empty answer, [N]; item 0 means no item.

    Args:
        found: items of the approximate answers, [N, K].
        exact: items of the exact answers, [N, K].
    """
    hits = ((exact[:, :, None] == found[:, None, :]) & (exact > 0)[:, :, None]).any(2).sum(1)
    wanted = (exact > 0).sum(1)
    return np.where(wanted > 0, hits / np.maximum(wanted, 1), 1.0)
