"""Rollback: make an earlier version the champion again, and reject the one that it replaces."""

from typing import Any

from elcrec.errors import UserError
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.ports import ModelRegistry, ServiceCheck


def rollback(
    name: str, version: str | None = None, *, registry: ModelRegistry, features: ServiceCheck
) -> dict[str, Any]:
    """Make an earlier version the champion and reject the present one.

    Servers follow within `serve.poll` seconds. Running it again with the same version changes nothing.

    Args:
        name: the registered model.
        version: the version to serve; `None` takes the newest one that is older than the champion and not rejected. A
            rejected version is pardoned.
        registry: the registry of the versions.
        features: the feature store, which must have the features that the version reads.

    Raises:
        UserError: there is no such version, or it cannot be served.
    """
    champion = registry.champion(name)
    wanted = version or _before(name, champion.version if champion else None, registry)
    found = registry.version(name, wanted)
    if found is None:
        raise UserError(f"model {name!r} has no version {wanted!r}", fix="name a version in the registry")
    manifest = verify_bundle(found.bundle)
    features.check(manifest.feature_service, manifest.feature_schema)
    registry.pardon(name, wanted)
    rejected = champion.version if champion and champion.version != wanted else None
    # Reject first, then replace: a push at the same time must not make it the champion again.
    if rejected is not None:
        registry.reject(name, rejected)
    registry.set_champion(name, wanted)
    return {"champion": wanted, "rejected": rejected}


def _before(name: str, champion: str | None, registry: ModelRegistry) -> str:
    older = [each for each in registry.versions(name) if champion is None or int(each) < int(champion)]
    if not older:
        raise UserError(f"model {name!r} has no version before its champion", fix="push a better model")
    return older[0]
