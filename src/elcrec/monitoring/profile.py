"""What a champion met at its evaluation: the training profile that served answers are shown beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elcrec.artifacts import read_json
from elcrec.data.ragged import Ragged
from elcrec.monitoring.daily import LENGTHS

PROFILE_FILE = "intents.json"
"""The file of a bundle that holds it."""


class Profile(NamedTuple):
    """Share of each intent, and of each group of known histories; empty where the bundle does not say."""

    intents: Mapping[str, float]
    lengths: Mapping[str, float]


NO_PROFILE = Profile({}, {})


def history_lengths(histories: Ragged, most: int) -> dict[str, float]:
    """Return the share of each group of LENGTHS among histories, as a server would know them.

    Args:
        histories: N rows, none of them empty.
        most: the longest history that is published; of a longer one that many items count.
    """
    lengths = np.minimum(histories.lengths, most)
    groups, counts = np.unique(np.searchsorted(LENGTHS, lengths, side="right") - 1, return_counts=True)
    return {str(LENGTHS[group]): int(count) / len(lengths) for group, count in zip(groups, counts, strict=True)}


def read_profile(bundle: Path) -> Profile:
    """Read it from a bundle; those of earlier versions do not have the lengths."""
    document: dict[str, Any] = read_json(bundle / PROFILE_FILE)
    shares = {str(one["intent"]): float(one["share"]) for one in document.get("intents", [])}
    return Profile(shares, document.get("history_lengths", {}))
