"""Bootstrap over users: how much the metrics would vary with another sample of users.

A user affects every metric only through their rank, and all ranks beyond the last cutoff count the same. Drawing users
with replacement is therefore the same as drawing the number of users of each rank: a multinomial over few cells, for
any number of users. Several rankings are drawn jointly, so that differences between them are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elcrec.evaluation.metrics import CUTOFFS, gains

FloatArray = npt.NDArray[np.float64]
_BEYOND = max(CUTOFFS) + 1
_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over users with its percentile interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Means of every metric of several rankings, as observed and in each resample.

    Attributes:
        means: ranking -> metric -> mean over users.
        samples: ranking -> metric -> mean in each resample, [R].
        confidence: level of the intervals.
    """

    means: dict[str, dict[str, float]]
    samples: dict[str, dict[str, FloatArray]]
    confidence: float

    def estimate(self, ranking: str, metric: str) -> Estimate:
        """Return a metric of one ranking."""
        return self._interval(self.means[ranking][metric], self.samples[ranking][metric])

    def difference(self, ranking: str, other: str, metric: str) -> Estimate:
        """Return `ranking` minus `other`, paired by user."""
        mean = self.means[ranking][metric] - self.means[other][metric]
        return self._interval(mean, self.samples[ranking][metric] - self.samples[other][metric])

    def _interval(self, mean: float, samples: FloatArray) -> Estimate:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(samples, [tail, 1 - tail])
        return Estimate(mean=mean, low=float(low), high=float(high))


def bootstrap(ranks: Mapping[str, npt.NDArray[np.integer]], *, samples: int, confidence: float, seed: int) -> Bootstrap:
    """Resample the users of all rankings together.

    Args:
        ranks: ranking -> rank of each user's target, [N] each, N > 0, the same users in the same order.
        samples: number of resamples (R).
        confidence: level of the intervals.
        seed: seeds the draws.
    """
    cells, counts = _cells(ranks)
    tables = {name: gains(cell_ranks) for name, cell_ranks in cells.items()}
    weights = counts / counts.sum()
    drawn = _draw(tables, counts, samples, seed)
    return Bootstrap(
        means={
            name: {metric: float(gain @ weights) for metric, gain in table.items()} for name, table in tables.items()
        },
        samples=drawn,
        confidence=confidence,
    )


def _cells(
    ranks: Mapping[str, npt.NDArray[np.integer]],
) -> tuple[dict[str, npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Group users by their ranks in all rankings: each group's ranks, and its size."""
    shape = (_BEYOND + 1,) * len(ranks)
    clipped = [np.minimum(rank, _BEYOND).astype(np.int64) for rank in ranks.values()]
    codes, counts = np.unique(np.ravel_multi_index(clipped, shape), return_counts=True)
    return dict(zip(ranks, np.unravel_index(codes, shape), strict=True)), counts


def _draw(
    tables: Mapping[str, Mapping[str, FloatArray]], counts: npt.NDArray[np.int64], samples: int, seed: int
) -> dict[str, dict[str, FloatArray]]:
    generator = np.random.default_rng(seed)
    total = counts.sum()
    drawn = {name: {metric: np.empty(samples) for metric in table} for name, table in tables.items()}
    step = max(1, _CELLS_AT_ONCE // len(counts))
    for start in range(0, samples, step):
        block = slice(start, min(start + step, samples))
        shares = generator.multinomial(total, counts / total, size=block.stop - start) / total
        for name, table in tables.items():
            for metric, gain in table.items():
                drawn[name][metric][block] = shares @ gain
    return drawn
