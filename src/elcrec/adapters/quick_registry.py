"""A folder's model registry without MLflow, whose import takes too long for a rollback.

MLflow's tables are read and written as MLflow does, if they have the layout for which this file was written. With any
other layout, MLflow itself is imported.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from elcrec.adapters.registry_names import ARTIFACT, DIGEST, REASON, REJECTED
from elcrec.errors import UserError
from elcrec.serving.ports import CHALLENGER, CHAMPION, ModelRegistry, RegisteredModel, TrainingRecord

LAYOUT = "dc11669786a5"
"""The revision of MLflow's tables, from its migrations."""
_PATIENCE_SECONDS = 20
_OWN = "workspace = 'default' AND name = ?"
_THERE = f"{_OWN} AND current_stage <> 'Deleted_Internal'"


class QuickRegistry:
    """A `ModelRegistry` on the SQLite file of a folder; it delegates to the full registry what it cannot do itself."""

    def __init__(self, folder: Path, full: Callable[[], ModelRegistry]) -> None:
        """Take the folder of an `MlflowRegistry`, and the function that opens it."""
        self._folder, self._full = folder, full

    @classmethod
    def open(cls, folder: Path, full: Callable[[], ModelRegistry]) -> "QuickRegistry | None":
        """Return the registry of a folder, `None` if its tables are missing or have an unknown layout."""
        found = cls(folder, full)
        try:
            with found._connected():
                return found
        except (sqlite3.Error, UserError):
            return None

    def champion(self, name: str) -> RegisteredModel | None:
        """See `ModelRegistry`."""
        return self._named(name, CHAMPION)

    def challenger(self, name: str) -> RegisteredModel | None:
        """See `ModelRegistry`."""
        return self._named(name, CHALLENGER)

    def version(self, name: str, version: str) -> RegisteredModel | None:
        """See `ModelRegistry`."""
        rows = self._ask(f"SELECT run_id FROM model_versions WHERE {_THERE} AND version = ?", name, version)
        if not rows:
            return None
        bundle = self._folder / "artifacts" / str(rows[0][0]) / "artifacts" / ARTIFACT
        return RegisteredModel(name=name, version=version, bundle=bundle)

    def versions(self, name: str) -> list[str]:
        """See `ModelRegistry`."""
        rejected = f"SELECT version FROM model_version_tags WHERE {_OWN} AND key = ?"
        asked = f"SELECT version FROM model_versions WHERE {_THERE} AND version NOT IN ({rejected})"
        rows = self._ask(f"{asked} ORDER BY version DESC", name, name, REJECTED)
        return [str(version) for (version,) in rows]

    def register(
        self,
        name: str,
        bundle: Path,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: TrainingRecord | None = None,
    ) -> str:
        """See `ModelRegistry`."""
        return self._full().register(name, bundle, metrics, tags, training)

    def set_champion(self, name: str, version: str) -> None:
        """See `ModelRegistry`."""
        with self._writing(name, version) as connection:
            self._set_alias(connection, name, CHAMPION, version)
            self._end_challenge(connection, name, version)

    def set_challenger(self, name: str, version: str) -> None:
        """See `ModelRegistry`."""
        with self._writing(name, version) as connection:
            self._set_alias(connection, name, CHALLENGER, version)

    def reject(self, name: str, version: str, reason: str = "") -> None:
        """See `ModelRegistry`."""
        tags = {REJECTED: datetime.now(UTC).isoformat(timespec="seconds"), **({REASON: reason} if reason else {})}
        put = "INSERT OR REPLACE INTO model_version_tags (key, value, name, version, workspace)"
        with self._writing(name, version) as connection:
            for key, value in tags.items():
                connection.execute(f"{put} VALUES (?, ?, ?, ?, 'default')", (key, value, name, version))
            self._end_challenge(connection, name, version)

    def pardon(self, name: str, version: str) -> None:
        """See `ModelRegistry`."""
        with self._writing(name, version) as connection:
            gone = f"DELETE FROM model_version_tags WHERE {_OWN} AND version = ? AND key IN (?, ?)"
            connection.execute(gone, (name, version, REJECTED, REASON))

    def rejected(self, name: str, digest: str) -> str | None:
        """See `ModelRegistry`."""
        tagged = f"SELECT version FROM model_version_tags WHERE {_OWN} AND key = ?"
        rows = self._ask(f"{tagged} AND value = ? INTERSECT {tagged}", name, DIGEST, digest, name, REJECTED)
        return next((str(version) for (version,) in rows), None)

    def _named(self, name: str, alias: str) -> RegisteredModel | None:
        rows = self._ask(f"SELECT version FROM registered_model_aliases WHERE {_OWN} AND alias = ?", name, alias)
        return self.version(name, str(rows[0][0])) if rows else None

    def _set_alias(self, connection: sqlite3.Connection, name: str, alias: str, version: str) -> None:
        put = "INSERT OR REPLACE INTO registered_model_aliases (alias, version, name, workspace)"
        connection.execute(f"{put} VALUES (?, ?, ?, 'default')", (alias, version, name))

    def _end_challenge(self, connection: sqlite3.Connection, name: str, version: str) -> None:
        gone = f"DELETE FROM registered_model_aliases WHERE {_OWN} AND alias = ? AND version = ?"
        connection.execute(gone, (name, CHALLENGER, version))

    def _ask(self, sql: str, *values: str) -> list[tuple[object, ...]]:
        with _clear_errors(self._folder), self._connected() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self, name: str, version: str) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are committed together.

        Raises:
            UserError: there is no such version.
        """
        if self.version(name, version) is None:
            raise UserError(f"model {name!r} has no version {version!r}", fix="name a version in the registry")
        with _clear_errors(self._folder), self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        database = f"{(self._folder / 'mlflow.db').absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(database, uri=True, timeout=_PATIENCE_SECONDS, isolation_level=None)) as found:
            if found.execute("SELECT version_num FROM alembic_version").fetchall() != [(LAYOUT,)]:
                what = "the layout of the registry's tables has changed since this process began"
                raise UserError(what, where=self._folder / "mlflow.db", fix="start the process again")
            yield found


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"the registry's database does not answer ({error})", where=folder / "mlflow.db") from error
