"""What a store keeps in Feast's registry besides Feast's own: which online store it belongs to, what was published."""

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
"""Under which the registry notes the name of the online store that it belongs to."""


def named(feast: FeatureStore) -> str | None:
    """Return the name of the online store that the registry belongs to; Feast's own commands leave it alone."""
    registry = feast.registry
    return registry.get_project_metadata(feast.project, _IDENTITY) if isinstance(registry, SqlRegistry) else None


def name_store(feast: FeatureStore, found: str | None) -> str:
    """Return the name that the store is to have; note it in the registry.

    Args:
        feast: the registry.
        found: what the online store is called.
    """
    known = named(feast)
    if known is not None and found not in (None, known):
        logger.warning("the online store was published from another store folder; it belongs to this one from now on")
    name = known or found or uuid.uuid4().hex
    if isinstance(feast.registry, SqlRegistry):
        feast.registry.set_project_metadata(feast.project, _IDENTITY, name)
    return name


def was_published(feast: FeatureStore) -> bool:
    """Whether a push has loaded histories; `feast apply` alone makes a store that is empty."""
    try:
        return bool(feast.get_feature_view(HISTORY.name).materialization_intervals)
    except FeatureViewNotFoundException:
        return False


def forget_removed_views(feast: FeatureStore) -> None:
    """Remove the versions of views that are gone: `feast teardown` leaves them, and the next apply fails on them."""
    registry = feast.registry
    if not isinstance(registry, SqlRegistry):
        return
    views = [view.name for view in registry.list_feature_views(feast.project, allow_cache=False)]
    versions = feature_view_version_history.c
    gone = versions.feature_view_name.not_in(views)
    with registry.write_engine.begin() as connection:
        connection.execute(delete(feature_view_version_history).where(versions.project_id == feast.project, gone))


def file_sources(objects: Sequence[Any]) -> list[FileSource]:
    """Return every file that views and sources lead to."""
    sources = [getattr(each, name, None) for each in objects for name in ("batch_source", "stream_source")]
    sources += [getattr(each, "batch_source", None) for each in sources]
    return [each for each in [*objects, *sources] if isinstance(each, FileSource)]


def history_source(feast: FeatureStore) -> str:
    source = feast.get_feature_view(HISTORY.name).batch_source
    return str(source.path) if source is not None else ""
