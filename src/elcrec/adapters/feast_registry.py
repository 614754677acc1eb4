"""Our own entries in Feast's registry: the online store that it belongs to, and what was published."""

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from feast import FeatureStore, FileSource
from feast.errors import FeatureViewNotFoundException
from feast.infra.registry.sql import SqlRegistry, feature_view_version_history
from sqlalchemy import delete

from elcrec.adapters.offline_files import HISTORY

logger = logging.getLogger(__name__)

_IDENTITY = "elcrec_store"
"""Key under which the registry keeps the name of its online store."""


def named(feast: FeatureStore) -> str | None:
    """Return the name of the registry's online store; Feast's own commands leave it unchanged."""
    registry = feast.registry
    return registry.get_project_metadata(feast.project, _IDENTITY) if isinstance(registry, SqlRegistry) else None


def name_store(feast: FeatureStore, found: str | None) -> str:
    """Return the name that the online store must have, and note it in the registry.

    Args:
        feast: the registry.
        found: the present name of the online store.
    """
    known = named(feast)
    if known is not None and found not in (None, known):
        logger.warning("the online store was published from another store folder; from now on it belongs to this one")
    name = known or found or uuid.uuid4().hex
    if isinstance(feast.registry, SqlRegistry):
        feast.registry.set_project_metadata(feast.project, _IDENTITY, name)
    return name


def was_published(feast: FeatureStore) -> bool:
    """Return whether a push has loaded histories; `feast apply` alone creates an empty store."""
    try:
        return bool(feast.get_feature_view(HISTORY.name).materialization_intervals)
    except FeatureViewNotFoundException:
        return False


def forget_removed_views(feast: FeatureStore) -> None:
    """Remove versions of views that no longer exist: `feast teardown` leaves them, and the next apply would fail."""
    registry = feast.registry
    if not isinstance(registry, SqlRegistry):
        return
    views = [view.name for view in registry.list_feature_views(feast.project, allow_cache=False)]
    versions = feature_view_version_history.c
    gone = versions.feature_view_name.not_in(views)
    with registry.write_engine.begin() as connection:
        connection.execute(delete(feature_view_version_history).where(versions.project_id == feast.project, gone))


def file_sources(objects: Sequence[Any]) -> list[FileSource]:
    """Return every file that views and sources refer to."""
    sources = [getattr(each, name, None) for each in objects for name in ("batch_source", "stream_source")]
    sources += [getattr(each, "batch_source", None) for each in sources]
    return [each for each in [*objects, *sources] if isinstance(each, FileSource)]


def history_source(feast: FeatureStore) -> str:
    source = feast.get_feature_view(HISTORY.name).batch_source
    return str(source.path) if source is not None else ""
