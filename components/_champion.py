"""The champion as a parameter that one component passes to another."""

from pathlib import Path

from elcrec.errors import UserError
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.ports import ModelRegistry


def name_champion(registry: ModelRegistry, name: str) -> str:
    """Return `NAME@DIGEST` of the champion, empty if there is none."""
    found = registry.champion(name)
    return f"{name}@{verify_bundle(found.bundle).digest}" if found else ""


def find_champion(registry: ModelRegistry, reference: str) -> Path:
    """Return the bundle that `name_champion` named.

    Raises:
        UserError: another model has become the champion.
    """
    name, _, digest = reference.rpartition("@")
    found = registry.champion(name)
    if found is None or verify_bundle(found.bundle).digest != digest:
        raise UserError(f"the champion of {name!r} has changed", where="warm start", fix="start a new run")
    return found.bundle
