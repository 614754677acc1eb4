"""Where a model comes from, in words for people: what its config.json says."""

from collections.abc import Mapping
from typing import Any

from elcrec.registry import find_objective


def origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of a model: its training, or the file from which it was imported."""
    facts = {"objective": config["train"]["objective"]}
    if "imported" in config:
        facts |= {"imported from": config["imported"]["file"], "sha256 of that file": config["imported"]["sha256"]}
    else:
        facts["seed"] = config["train"]["seed"]
        facts["epochs"] = f"{config.get('epochs')} (best {config.get('best_epoch')})"
    return facts | {"git revision": config.get("git_revision") or "not in a repository"}


def known_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `train`; for an imported model only what its tensors show, as its training is unknown."""
    settings: dict[str, Any] = config["train"]
    if "imported" not in config:
        return settings
    encoder = {name: settings["encoder"][name] for name in ("window", "hidden_size", "num_blocks", "num_heads")}
    known = {"objective": settings["objective"], "encoder": encoder}
    num_intents = settings["intents"]["num_intents"]
    return known | ({"intents": {"num_intents": num_intents}} if find_objective(settings["objective"]).intents else {})
