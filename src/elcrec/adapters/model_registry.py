"""MLflow as the model registry: bundles are run artifacts, versions carry the bundle's digest as a tag."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from elcrec.adapters.quiet import quiet
from elcrec.adapters.registry_names import ARTIFACT, DIGEST, REASON, REJECTED
from elcrec.artifacts import atomic_dir, atomic_file
from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.serving.ports import CHALLENGER, CHAMPION, RegisteredModel, TrainingRecord

with quiet("mlflow", "alembic"):
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

logger = logging.getLogger(__name__)

_CURVES = "training/"
"""Prefix of the names of training curves, which MLflow draws as a group apart from the final metrics."""
_PARAMETERS_AT_ONCE, _POINTS_AT_ONCE, _LONGEST_VALUE = 100, 1000, 500
"""Limits of an MLflow server for one request, and for one value."""
Entity = TypeVar("Entity")


class MlflowRegistry:
    """A `ModelRegistry` on an MLflow server, or on SQLite and files under a folder.

    The folder can be moved: paths inside it are derived from run ids, not read from the database.
    """

    def __init__(self, folder: Path, *, tracking_uri: str | None = None) -> None:
        """Take the folder for the local database, or the downloads from a server at `tracking_uri`."""
        self._folder = folder
        self._server = tracking_uri
        self._opened: tuple[tuple[int, int] | None, MlflowClient] | None = None

    def champion(self, name: str) -> RegisteredModel | None:
        """See `ModelRegistry`. With a server, the bundle is downloaded once.

        Raises:
            UserError: MLflow cannot be reached or refuses.
        """
        return self._named(name, CHAMPION)

    def challenger(self, name: str) -> RegisteredModel | None:
        """See `ModelRegistry`. With a server, the bundle is downloaded once.

        Raises:
            UserError: MLflow cannot be reached or refuses.
        """
        return self._named(name, CHALLENGER)

    def version(self, name: str, version: str) -> RegisteredModel | None:
        """See `ModelRegistry`. With a server, the bundle is downloaded once.

        Raises:
            UserError: MLflow cannot be reached or refuses.
        """
        found = self._ask(lambda client: client.get_model_version(name, version))
        return RegisteredModel(name=name, version=version, bundle=self._fetch(found)) if found else None

    def versions(self, name: str) -> list[str]:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached or refuses.
        """
        found = self._ask(lambda client: client.search_model_versions(f"name='{name}'"))
        numbers = [int(version.version) for version in found or [] if REJECTED not in version.tags]
        return [str(number) for number in sorted(numbers, reverse=True)]

    def register(
        self,
        name: str,
        bundle: Path,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: TrainingRecord | None = None,
    ) -> str:
        """See `ModelRegistry`. A run left behind by a killed call is completed.

        Raises:
            UserError: MLflow cannot be reached or refuses, or the bundle has no valid manifest.
        """
        digest = read_manifest(bundle).digest
        with _mlflow():
            found = self._client.search_model_versions(f"name='{name}' and tags.`{DIGEST}`='{digest}'")
            if found:
                known = min(int(version.version) for version in found)
                logger.info("%s: this bundle is already version %d", name, known)
                return str(known)
            run = self._finished_run(name, digest, bundle, metrics, tags, training)
            self._ensure_model(name)
            source = f"{run.info.artifact_uri}/{ARTIFACT}"
            version = self._client.create_model_version(
                name, source=source, run_id=run.info.run_id, tags={**tags, DIGEST: digest}
            )
            logger.info("registered %s version %s", name, version.version)
            return str(version.version)

    def set_champion(self, name: str, version: str) -> None:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached, or has no such version.
        """
        with _mlflow():
            self._client.set_registered_model_alias(name, CHAMPION, version)
            self._end_challenge(name, version)

    def set_challenger(self, name: str, version: str) -> None:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached, or has no such version.
        """
        with _mlflow():
            self._client.set_registered_model_alias(name, CHALLENGER, version)

    def reject(self, name: str, version: str, reason: str = "") -> None:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached, or has no such version.
        """
        with _mlflow():
            moment = datetime.now(UTC).isoformat(timespec="seconds")
            self._client.set_model_version_tag(name, version, REJECTED, moment)
            if reason:
                self._client.set_model_version_tag(name, version, REASON, reason)
            self._end_challenge(name, version)

    def pardon(self, name: str, version: str) -> None:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached, or has no such version.
        """
        with _mlflow():
            tags = self._client.get_model_version(name, version).tags
            for tag in (REASON, REJECTED):
                if tag in tags:
                    self._client.delete_model_version_tag(name, version, tag)

    def rejected(self, name: str, digest: str) -> str | None:
        """See `ModelRegistry`.

        Raises:
            UserError: MLflow cannot be reached or refuses.
        """
        asked = f"name='{name}' and tags.`{DIGEST}`='{digest}'"
        found = self._ask(lambda client: client.search_model_versions(asked))
        return next((str(version.version) for version in found or [] if REJECTED in version.tags), None)

    def _named(self, name: str, alias: str) -> RegisteredModel | None:
        model = self._ask(lambda client: client.get_registered_model(name))
        return self.version(name, str(model.aliases[alias])) if model and alias in model.aliases else None

    def _end_challenge(self, name: str, version: str) -> None:
        if str(self._client.get_registered_model(name).aliases.get(CHALLENGER)) == version:
            self._client.delete_registered_model_alias(name, CHALLENGER)

    def _ask(self, question: Callable[[MlflowClient], Entity]) -> Entity | None:
        """Return MLflow's answer, `None` if the object does not exist; no registry is created by asking."""
        if self._server is None and not _has_registry(self._folder):
            return None
        with _mlflow():
            try:
                return question(self._client)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    @property
    def _client(self) -> MlflowClient:
        """The client; a new one if the file of the local database was replaced."""
        if self._server is not None:
            uri, identity = self._server, None
        else:
            uri, identity = _local_database(self._folder)
        if self._opened is None or self._opened[0] != identity:
            if self._opened is not None:
                _close_connections(uri)
            self._opened = identity, MlflowClient(tracking_uri=uri, registry_uri=uri)
        return self._opened[1]

    @property
    def _artifacts(self) -> Path:
        return self._folder / "artifacts"

    def _fetch(self, version: ModelVersion) -> Path:
        if self._server is None:
            return self._artifacts / str(version.run_id) / "artifacts" / ARTIFACT
        cached = self._folder / "downloads" / str(version.tags[DIGEST])
        if not cached.is_dir():
            self._download(version, cached)
        return cached

    def _download(self, version: ModelVersion, cached: Path) -> None:
        """Download a bundle from the server; if it is gone there, no folder is made, and reading it will fail."""
        try:
            with atomic_dir(cached) as scratch:
                download_artifacts(
                    run_id=version.run_id,
                    artifact_path=ARTIFACT,
                    dst_path=str(scratch),
                    tracking_uri=self._server,
                )
                # The download contains the artifact's folder; its files belong one level up.
                for path in (scratch / ARTIFACT).iterdir():
                    path.rename(scratch / path.name)
                (scratch / ARTIFACT).rmdir()
        except (OSError, MlflowException) as error:
            logger.warning("the bundle of version %s cannot be downloaded (%s)", version.version, type(error).__name__)

    def _finished_run(
        self,
        name: str,
        digest: str,
        bundle: Path,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: TrainingRecord | None,
    ) -> Run:
        experiment = self._experiment(name)
        runs = self._client.search_runs([experiment], f"tags.`{DIGEST}` = '{digest}'", max_results=1)
        run = runs[0] if runs else self._client.create_run(experiment, tags={DIGEST: digest})
        if run.info.status != "FINISHED":
            self._client.log_artifacts(run.info.run_id, str(bundle), ARTIFACT)
            self._client.log_batch(
                run.info.run_id,
                metrics=[Metric(_metric_name(key), value, 0, 0) for key, value in metrics.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
            if training is not None:
                self._log_training(run.info.run_id, training)
            self._client.set_terminated(run.info.run_id)
        return run

    def _log_training(self, run_id: str, training: TrainingRecord) -> None:
        """Log parameters and curves, with one step per epoch; logging them again changes nothing."""
        parameters = (Param(name, value[:_LONGEST_VALUE]) for name, value in training.parameters.items())
        while part := list(islice(parameters, _PARAMETERS_AT_ONCE)):
            self._client.log_batch(run_id, params=part)
        curves = (
            Metric(_CURVES + _metric_name(name), value, 0, int(epoch["epoch"]))
            for epoch in training.epochs
            for name, value in epoch.items()
            if name != "epoch"
        )
        while points := list(islice(curves, _POINTS_AT_ONCE)):
            self._client.log_batch(run_id, metrics=points)

    def _experiment(self, name: str) -> str:
        """Return the experiment whose artifacts are in this folder (MLflow stores absolute paths)."""
        location = None if self._server else self._artifacts.as_uri()
        for candidate in (name, f"{name} in {self._folder}"):
            experiment = self._client.get_experiment_by_name(candidate)
            if experiment is None:
                return str(self._client.create_experiment(candidate, artifact_location=location))
            if location in (None, experiment.artifact_location):
                return str(experiment.experiment_id)
        raise UserError(f"experiment {name!r} keeps its artifacts elsewhere", where=self._folder)

    def _ensure_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _has_registry(folder: Path) -> bool:
    """Whether something was ever registered in the folder: it has the database, or bundles that need it."""
    return (folder / "mlflow.db").exists() or (folder / "artifacts").exists()


def make_database(folder: Path) -> None:
    """Create an empty registry in a new folder, atomically, because creating its tables takes seconds."""
    with atomic_file(folder / "mlflow.db") as scratch, quiet("mlflow", "alembic"):
        MlflowClient(tracking_uri=f"sqlite:///{scratch}")


def _local_database(folder: Path) -> tuple[str, tuple[int, int]]:
    """Return the URI and the identity of the folder's database file; create one in a new folder.

    Raises:
        UserError: there are bundles, but the database that describes them is missing.
    """
    database = folder / "mlflow.db"
    if not database.exists():
        if (folder / "artifacts").exists():
            raise UserError("the registry's database is missing", where=database, fix="restore it from a backup")
        make_database(folder)
    found = database.stat()
    return f"sqlite:///{database}", (found.st_dev, found.st_ino)


def _close_connections(uri: str) -> None:
    """Let MLflow reopen a database: it keeps a pool of connections per URI, even if the file was replaced."""
    for store in (TrackingStore, RegistryStore):
        engine = store._engine_map.get(uri)  # noqa: SLF001 - there is no public way
        if engine is not None:
            engine.dispose()


def _metric_name(name: str) -> str:
    """Return a metric's name without @, which MLflow does not allow."""
    return name.replace("@", "_at_")


@contextmanager
def _mlflow() -> Iterator[None]:
    try:
        with quiet("mlflow", "alembic"):
            yield
    except MlflowException as error:
        fix = "check MLFLOW_TRACKING_URI, or the store folder if it is not set"
        raise UserError(f"MLflow: {error.message}", fix=fix) from error
