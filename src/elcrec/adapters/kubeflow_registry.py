"""The Kubeflow Model Registry in addition to MLflow, so that Kubeflow's pages show versions and their runs.

MLflow stays the registry that serving and the gate read: the Kubeflow registry does not know the champion, the
challenger, or rejected versions.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.adapters.quiet import quiet
from elcrec.adapters.registry_names import DIGEST
from elcrec.artifacts import SCHEMA_VERSION
from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.serving.ports import TrainingRecord

with quiet("model_registry"):
    from aiohttp import ClientError
    from model_registry.core import ModelRegistryAPIClient
    from model_registry.types import ModelArtifact, ModelVersion, RegisteredModel
    from mr_openapi.exceptions import OpenApiException

_AUTHOR = "elcrec"
_FORMAT = "elcrec-bundle"
_TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""File with the token of a pod's service account; KF_PIPELINES_SA_TOKEN_PATH names another one."""
_SOURCE = {"id": "model_source_id", "name": "model_source_name", "namespace": "model_source_group"}
"""Property of the Model Registry for the run of the pipeline that made a model."""


class MirroredRegistry(MlflowRegistry):
    """An `MlflowRegistry` whose versions are also in the Kubeflow Model Registry, under the same numbers."""

    def __init__(self, folder: Path, *, mirror: str, tracking_uri: str | None = None) -> None:
        """Take the arguments of `MlflowRegistry`, and the Model Registry's address, such as `http://host:8080`.

        Raises:
            UserError: the address is not one of HTTP.
        """
        super().__init__(folder, tracking_uri=tracking_uri)
        if not mirror.startswith(("http://", "https://")):
            raise UserError(
                "not an http or https address", where="MODEL_REGISTRY_URL", fix="write e.g. http://host:8080"
            )
        self._mirror = mirror.rstrip("/")

    def register(
        self,
        name: str,
        bundle: Path,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: TrainingRecord | None = None,
    ) -> str:
        """See `ModelRegistry`. A killed call's unfinished work in either registry is completed.

        Raises:
            UserError: a registry cannot be reached or refuses, or the Model Registry has another model of this number.
        """
        version = super().register(name, bundle, metrics, tags, training)
        facts: dict[str, float | str] = {**metrics, **tags, DIGEST: read_manifest(bundle).digest}
        uri = self._client.get_model_version_download_uri(name, version)
        try:
            with quiet("model_registry"):
                asyncio.run(_mirror(self._api(), name, version, uri, facts))
        except (OpenApiException, ClientError, OSError) as error:
            what = f"the Kubeflow Model Registry did not take version {version} ({type(error).__name__})"
            raise UserError(what, where=self._mirror, fix="check MODEL_REGISTRY_URL") from error
        return version

    def _api(self) -> ModelRegistryAPIClient:
        token = _token()
        if self._mirror.startswith("http://"):
            return ModelRegistryAPIClient.insecure_connection(self._mirror, 80, token)
        return ModelRegistryAPIClient.secure_connection(self._mirror, 443, user_token=token)


def _token() -> str:
    path = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or _TOKEN_FILE)
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


async def _mirror(
    api: ModelRegistryAPIClient, name: str, version: str, uri: str, facts: Mapping[str, float | str]
) -> None:
    """Create model, version and artifact, unless they exist."""
    model = await api.get_registered_model_by_params(name)
    if model is None:
        model = await api.upsert_registered_model(RegisteredModel(name=name, owner=_AUTHOR))
    found = await api.get_model_version_by_params(model.id, version)
    if found is None:
        numbered = ModelVersion(name=version, author=_AUTHOR, custom_properties=facts)
        found = await api.upsert_model_version(numbered, model.id)
    if (found.custom_properties or {}).get(DIGEST) != facts[DIGEST]:
        what = f"the Kubeflow Model Registry has another {name} version {version}"
        raise UserError(what, fix="push under another name (push.model_name), or archive that model there")
    if await api.get_model_artifact_by_params(name, found.id) is None:
        made = {field: facts[key] for part, field in _SOURCE.items() if (key := f"elcrec.run.{part}") in facts}
        if made:
            made |= {"model_source_kind": "kfp", "model_source_class": "pipelinerun"}
        kind = {"model_format_name": _FORMAT, "model_format_version": str(SCHEMA_VERSION)}
        artifact = ModelArtifact(name=name, uri=uri, **kind, **made)
        await api.upsert_model_version_artifact(artifact, found.id)
