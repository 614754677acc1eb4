"""What a champion met at its evaluation: the training profile that served answers are shown beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elcrec.artifacts import read_json

PROFILE_FILE = "intents.json"
"""The file of a bundle that holds it."""


class Profile(NamedTuple):
    """Share of each intent, and of each group of known histories; empty where the bundle does not say."""

    intents: Mapping[str, float]
    lengths: Mapping[str, float]


NO_PROFILE = Profile({}, {})


def read_profile(bundle: Path) -> Profile:
    """Read it from a bundle; those of earlier versions do not have the lengths."""
    document: dict[str, Any] = read_json(bundle / PROFILE_FILE)
    shares = {str(one["intent"]): float(one["share"]) for one in document.get("intents", [])}
    return Profile(shares, document.get("history_lengths", {}))
