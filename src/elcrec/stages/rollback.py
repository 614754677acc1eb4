"""Rollback: an earlier version serves again, and no push brings back the one that it replaces."""

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
        version: what is to serve; `None` takes the newest that is older than the champion and was not rejected. One
            that was rejected itself is pardoned.
        registry: where the versions are.
        features: the feature store, which must have what the version reads.

    Raises:
        UserError: there is no such version, or it cannot be served.
    """
    champion = registry.champion(name)
    wanted = version or _before(name, champion.version if champion else None, registry)
    found = registry.version(name, wanted)
    if found is None:
        raise UserError(f"model {name!r} has no version {wanted!r}", fix="name one that the registry has")
    manifest = verify_bundle(found.bundle)
    features.check(manifest.feature_service, manifest.feature_schema)
    registry.pardon(name, wanted)
    rejected = champion.version if champion and champion.version != wanted else None
    # First rejected, then replaced: a push that goes on in between must not make it the champion again.
    if rejected is not None:
        registry.reject(name, rejected)
    registry.set_champion(name, wanted)
    return {"champion": wanted, "rejected": rejected}


def _before(name: str, champion: str | None, registry: ModelRegistry) -> str:
    older = [each for each in registry.versions(name) if champion is None or int(each) < int(champion)]
    if not older:
        raise UserError(f"model {name!r} has no version before its champion", fix="push a better model")
    return older[0]
