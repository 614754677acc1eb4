"""Histories in the online store that Feast's configuration names: SQLite or Redis."""

from feast import FeatureView
from feast.repo_config import RepoConfig

from elcrec.adapters.history_rows import HistoryRows
from elcrec.adapters.redis_rows import RedisRows
from elcrec.adapters.sqlite_rows import SqliteRows
from elcrec.errors import UserError


def open_rows(config: RepoConfig, view: FeatureView, identity: str | None = None) -> HistoryRows:
    """Return the rows of `view` in the online store that `config` names.

    Args:
        config: the configuration that names the store.
        view: the view of histories.
        identity: the store's name; a store of another name is neither read nor written. `None` accepts any.

    Raises:
        UserError: histories cannot be updated atomically in a store of this kind.
    """
    kind = config.online_store.type
    if kind == "sqlite":
        return SqliteRows(config, view, identity)
    if kind == "redis" and config.online_store.redis_type != "redis_cluster":
        return RedisRows(config, view, identity)
    raise UserError(f"no online store of type {kind!r} for live histories", fix="use sqlite or redis")
