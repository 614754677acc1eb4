"""The champion as a parameter that one component hands to another."""

from pathlib import Path

from elcrec.errors import UserError
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.ports import ModelRegistry


def name_champion(registry: ModelRegistry, name: str) -> str:
    """Return `NAME@DIGEST` of the champion, or nothing where there is none."""
    found = registry.champion(name)
    return f"{name}@{verify_bundle(found.bundle).digest}" if found else ""


def find_champion(registry: ModelRegistry, reference: str) -> Path:
    """Return the bundle that `name_champion` named.

    Raises:
        UserError: another model is the champion by now.
    """
    name, _, digest = reference.rpartition("@")
    found = registry.champion(name)
    if found is None or verify_bundle(found.bundle).digest != digest:
        raise UserError(f"the champion of {name!r} has changed", where="warm start", fix="start the run again")
    return found.bundle
