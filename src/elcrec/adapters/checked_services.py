"""A note beside Feast's registry of the services that it serves, so that a later check need not import Feast.

The note is valid only for the definitions from which it was made: if a service or a view in the registry has changed,
the note is ignored and Feast is asked.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from elcrec.artifacts import SCHEMA_VERSION, atomic_file, read_json, write_json
from elcrec.errors import UserError
from elcrec.serving.ports import FeatureStore

_NOTE = "checked.json"
_DEFINITIONS = (
    "SELECT feature_service_name, project_id, feature_service_proto FROM feature_services ORDER BY 1, 2",
    "SELECT feature_view_name, project_id, feature_view_proto FROM feature_views ORDER BY 1, 2",
)


def note_checked(folder: Path, registry: Path, services: Mapping[str, str]) -> None:
    """Note the schemas of services by name; a note of other definitions is replaced."""
    definitions = _fingerprint(registry)
    known = {} if definitions is None else _noted(folder, definitions)
    if definitions is None or known == {**known, **services}:
        return
    document = {"schema_version": SCHEMA_VERSION, "definitions": definitions, "services": {**known, **services}}
    # Without the note a rollback only takes longer.
    with suppress(OSError, UserError), atomic_file(folder / _NOTE) as scratch:
        write_json(scratch, document)


class QuickCheck:
    """Checks a service by the note, or else with Feast."""

    def __init__(self, folder: Path, full: Callable[[], FeatureStore]) -> None:
        """Take the folder of Feast's registry, and the function that opens the feature store."""
        self._folder, self._full = folder, full

    def check(self, service: str, schema: str | None = None) -> None:
        """See `FeatureStore`."""
        definitions = _fingerprint(self._folder / "registry.db")
        known = {} if definitions is None else _noted(self._folder, definitions)
        if service not in known or known[service] != schema:
            self._full().check(service, schema)


def _noted(folder: Path, definitions: str) -> dict[str, str]:
    try:
        document = read_json(folder / _NOTE)
    except UserError:
        return {}
    return dict(document["services"]) if document.get("definitions") == definitions else {}


def _fingerprint(registry: Path) -> str | None:
    """Return a digest of the definitions in a registry, `None` if it is not a file of Feast's."""
    digest = hashlib.sha256()
    try:
        with closing(sqlite3.connect(f"{registry.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            for sql in _DEFINITIONS:
                for row in connection.execute(sql):
                    for value in row:
                        part = value if isinstance(value, bytes) else str(value).encode()
                        digest.update(len(part).to_bytes(8) + part)
    except sqlite3.Error:
        return None
    return digest.hexdigest()
