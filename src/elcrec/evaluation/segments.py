"""Metrics by group of users: length of the history, popularity of the target."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.evaluation.bootstrap import Bootstrap, bootstrap
from elcrec.evaluation.metrics import HEADLINE

IntArray = npt.NDArray[np.integer]

_LENGTHS = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, None))
_TAIL, _HEAD = 0.5, 0.8


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A partition of the users.

    Attributes:
        name: the property by which users are grouped.
        groups: name of each group, in order.
        member: group of each user, [N].
    """

    name: str
    groups: list[str]
    member: IntArray


def by_history_length(lengths: IntArray) -> Segmentation:
    """Group users by the number of items before the target."""
    groups = [_span(low, high) for low, high in _LENGTHS]
    starts = [low for low, _ in _LENGTHS]
    member = np.searchsorted(starts, lengths, side="right") - 1
    return Segmentation(name="history_length", groups=groups, member=member)


def by_target_popularity(target_items: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Segmentation:
    """Group users by the training count of their target.

    Unseen items have a count of 0. Among items with training interactions, head is above the 80 % quantile of counts,
    tail is at or below the median, and torso is between them.

    Args:
        target_items: the item to find, [N].
        counts: training count of each item, [V + 1].
    """
    seen = counts[1:][counts[1:] > 0]
    tail, head = (int(np.quantile(seen, level, method="lower")) for level in (_TAIL, _HEAD))
    torso = _span(tail + 1, head)
    groups = ["unseen (0)", f"tail ({_span(1, tail)})", f"torso ({torso})", f"head ({head + 1}+)"]
    member = np.searchsorted([0, tail, head], counts[target_items], side="left")
    return Segmentation(name="target_popularity", groups=groups, member=member)


def segment_table(
    segmentations: list[Segmentation],
    ranks: Mapping[str, IntArray],
    *,
    samples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Return one row per non-empty group: users, HR@20 and NDCG@20 of every ranking, the model's NDCG@20 interval.

    Args:
        segmentations: the partitions, each of all users.
        ranks: ranking -> rank of each user's target, [N]; the columns of `model` have no prefix.
        samples: bootstrap resamples.
        confidence: level of the interval.
        seed: seeds the bootstrap.
    """
    rows = []
    for segmentation in segmentations:
        for index, group in enumerate(segmentation.groups):
            users = np.flatnonzero(segmentation.member == index)
            if len(users):
                inside = {name: rank[users] for name, rank in ranks.items()}
                drawn = bootstrap(inside, samples=samples, confidence=confidence, seed=seed)
                row = {"segment": segmentation.name, "group": group, "users": len(users)}
                rows.append(row | _numbers(drawn))
    return pd.DataFrame(rows)


def _numbers(drawn: Bootstrap) -> dict[str, float]:
    interval = drawn.estimate("model", "ndcg@20")
    numbers = {"ndcg@20_low": interval.low, "ndcg@20_high": interval.high}
    for name, means in drawn.means.items():
        prefix = "" if name == "model" else f"{name}_"
        numbers |= {f"{prefix}{metric}": means[metric] for metric in HEADLINE}
    return numbers


def _span(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return f"{low}" if low == high else f"{low}-{high}"
