"""The Feast repository's definitions, imported for one store, and digests of the schemas of services."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from feast import FeatureService, FeatureStore, FeatureView
from feast.repo_contents import RepoContents
from feast.repo_operations import parse_repo


def definitions_for(repository: Path, store: Path) -> list[Any]:
    """Return all objects that the repository defines, with sources in `store`."""
    contents = _parse(repository, store)
    return [
        *contents.projects,
        *contents.data_sources,
        *contents.entities,
        *contents.feature_views,
        *contents.on_demand_feature_views,
        *contents.stream_feature_views,
        *contents.feature_services,
        *contents.permissions,
    ]


def repository_schema(repository: Path, service: str) -> str | None:
    """Return the digest of a service as the repository defines it; `None` if it does not define it."""
    with tempfile.TemporaryDirectory() as nowhere:
        contents = _parse(repository, Path(nowhere))
    views = {view.name: view for view in contents.feature_views}
    return next((_digest(found, views) for found in contents.feature_services if found.name == service), None)


def published_schema(feast: FeatureStore, service: FeatureService) -> str:
    """Return the digest of a service as the registry has it."""
    views = {name: feast.get_feature_view(name) for name in _view_names(service)}
    return _digest(service, views)


def _view_names(service: FeatureService) -> Iterable[str]:
    return [projection.name for projection in service.feature_view_projections]


def _digest(service: FeatureService, views: Mapping[str, FeatureView]) -> str:
    """Return a digest of what readers depend on: the keys of rows, and the name and type of each feature."""
    schema = []
    for projection in service.feature_view_projections:
        keys = {column.name: str(column.dtype) for column in views[projection.name].entity_columns}
        features = {feature.name: str(feature.dtype) for feature in projection.features if feature.name not in keys}
        schema.append({"view": projection.name_to_use(), "keys": keys, "features": features})
    schema.sort(key=lambda each: str(each["view"]))
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()


def _parse(repository: Path, store: Path) -> RepoContents:
    with _definitions(repository, store):
        return parse_repo(repository)


@contextmanager
def _definitions(repository: Path, store: Path) -> Iterator[None]:
    """Let Feast import a repository's flat modules anew, bound to `store`, and remove them from sys.modules."""
    names = {path.stem for path in repository.glob("*.py")}
    hidden = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    before = os.environ.get("ELCREC_STORE")
    os.environ["ELCREC_STORE"] = str(store)
    sys.path.insert(0, str(repository))
    try:
        with chdir(repository):
            yield
    finally:
        sys.path.remove(str(repository))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
        os.environ.pop("ELCREC_STORE")
        if before is not None:
            os.environ["ELCREC_STORE"] = before
