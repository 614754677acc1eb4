"""Groups of history lengths that double, the same for a log and for serving."""

import numpy as np

from elcrec.data.ragged import Ragged

LENGTHS = tuple(1 << power for power in range(11))
"""Shortest history of each group; the last group is open."""


def history_lengths(histories: Ragged, most: int | None) -> dict[str, float]:
    """Return the share of each group of LENGTHS among histories, as a server sees them.

    Args:
        histories: N rows, none of them empty.
        most: length to which published histories are cut; a longer one counts with this length. `None` for no limit.
    """
    lengths = histories.lengths if most is None else np.minimum(histories.lengths, most)
    groups, counts = np.unique(np.searchsorted(LENGTHS, lengths, side="right") - 1, return_counts=True)
    return {str(LENGTHS[group]): int(count) / len(lengths) for group, count in zip(groups, counts, strict=True)}
