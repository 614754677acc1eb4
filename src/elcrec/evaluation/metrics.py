"""Ranking metrics from ranks. With one target per user, HR@k is recall@k and NDCG@k is 1 / log2(rank + 1)."""

import numpy as np
import numpy.typing as npt

MISS = np.iinfo(np.int32).max
"""The rank of a target that cannot be found, because it is excluded or its score is not a number."""
CUTOFFS = (5, 10, 20)
HEADLINE = ("hr@20", "ndcg@20")
"""Metrics that stand for all, where groups or models are compared."""
Gains = dict[str, npt.NDArray[np.float64]]


def gains(ranks: npt.NDArray[np.integer]) -> Gains:
    """Return every user's contribution to each metric, `hr@5` … `mrr@20`, each [N].

    Args:
        ranks: rank of the target among all items that are not in the history, 1 is best, [N].
    """
    rank = ranks.astype(np.float64)
    table: Gains = {}
    for k in CUTOFFS:
        hit = (rank <= k).astype(np.float64)
        table[f"hr@{k}"] = hit
        table[f"ndcg@{k}"] = hit / np.log2(rank + 1)
        table[f"mrr@{k}"] = hit / rank
    return table


def mean_metrics(ranks: npt.NDArray[np.integer]) -> dict[str, float]:
    """Return the mean of every metric over users; zeros if there are none."""
    return {name: float(gain.mean()) if len(gain) else 0.0 for name, gain in gains(ranks).items()}
