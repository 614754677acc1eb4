"""The training profile: the mix of intents and histories at a champion's evaluation, for comparison with serving."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elcrec.artifacts import read_json

PROFILE_FILE = "intents.json"
"""The file of a bundle that holds the profile."""


class Profile(NamedTuple):
    """Share of each intent, and of each group of known histories; empty if the bundle does not have it."""

    intents: Mapping[str, float]
    lengths: Mapping[str, float]


NO_PROFILE = Profile({}, {})


def read_profile(bundle: Path) -> Profile:
    """Read the profile from a bundle; bundles of earlier versions lack the lengths."""
    document: dict[str, Any] = read_json(bundle / PROFILE_FILE)
    shares = {str(one["intent"]): float(one["share"]) for one in document.get("intents", [])}
    return Profile(shares, document.get("history_lengths", {}))
