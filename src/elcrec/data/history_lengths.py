"""How long histories are, in groups that double: the same for a log and for what is served."""

import numpy as np

from elcrec.data.ragged import Ragged

LENGTHS = tuple(1 << power for power in range(11))
"""Shortest history of each group; the last group has no longest one."""


def history_lengths(histories: Ragged, most: int | None) -> dict[str, float]:
    """Return the share of each group of LENGTHS among histories, as a server would know them.

    Args:
        histories: N rows, none of them empty.
        most: the longest history that is published; of a longer one that many items count. `None`: all of them do.
    """
    lengths = histories.lengths if most is None else np.minimum(histories.lengths, most)
    groups, counts = np.unique(np.searchsorted(LENGTHS, lengths, side="right") - 1, return_counts=True)
    return {str(LENGTHS[group]): int(count) / len(lengths) for group, count in zip(groups, counts, strict=True)}
