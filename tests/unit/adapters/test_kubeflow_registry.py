"""A pushed model is also in the Kubeflow Model Registry, with the same fields as in MLflow."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from components._faults import is_passing
from elcrec.adapters.kubeflow_registry import MirroredRegistry
from elcrec.adapters.store import open_store
from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from tests.support.model_registry_server import ModelRegistryServer, model_registry_server
from tests.unit.adapters.test_model_registry import make_bundle

METRICS = {"ndcg@20": 0.25}
TAGS: Mapping[str, str] = {
    "sequences_md5": "0",
    "elcrec.run.id": "5a1b",
    "elcrec.run.name": "nightly",
    "elcrec.run.namespace": "team",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelRegistryServer]:
    (tmp_path / "token").write_text("secret-token\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with model_registry_server() as state:
        yield state


@pytest.fixture
def registry(server: ModelRegistryServer, empty_registry: Path, tmp_path: Path) -> MirroredRegistry:
    return MirroredRegistry(Path(shutil.copytree(empty_registry, tmp_path / "mlflow")), mirror=server.address)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, "first")


def test_a_version_is_entered_with_its_numbers_its_run_and_where_its_bundle_is(
    registry: MirroredRegistry, server: ModelRegistryServer, bundle: Path
) -> None:
    version = registry.register("m", bundle, METRICS, TAGS)

    (model,), (entered,), (artifact,) = server.models, server.versions, server.artifacts
    assert (model["name"], entered["name"], entered["registeredModelId"]) == ("m", version, model["id"])
    facts = {
        key: value.get("string_value", value.get("double_value")) for key, value in entered["customProperties"].items()
    }
    assert facts == {**METRICS, **TAGS, "elcrec.bundle": read_manifest(bundle).digest}
    champion = registry.version("m", version)
    assert champion is not None
    assert Path(artifact["uri"].removeprefix("file://")) == champion.bundle
    made = {key: artifact[f"modelSource{key}"] for key in ("Kind", "Class", "Group", "Id", "Name")}
    assert made == {"Kind": "kfp", "Class": "pipelinerun", "Group": "team", "Id": "5a1b", "Name": "nightly"}
    assert (artifact["modelFormatName"], artifact["modelFormatVersion"]) == ("elcrec-bundle", "1")
    assert server.tokens == {"Bearer secret-token"}


def test_an_interrupted_call_is_completed_without_duplicates(
    registry: MirroredRegistry, server: ModelRegistryServer, bundle: Path
) -> None:
    for path in ("registered_models", "model_versions", "artifacts"):
        server.refused = {path}
        with pytest.raises(UserError, match="did not take version 1") as refusal:
            registry.register("m", bundle, METRICS, TAGS)
        assert is_passing(refusal.value)
    server.refused = set()

    assert [registry.register("m", bundle, METRICS, TAGS) for _ in range(2)] == ["1", "1"]
    assert [len(each) for each in (server.models, server.versions, server.artifacts)] == [1, 1, 1]


def test_a_version_number_of_another_model_is_refused(
    registry: MirroredRegistry, server: ModelRegistryServer, bundle: Path, empty_registry: Path, tmp_path: Path
) -> None:
    registry.register("m", bundle, METRICS, TAGS)
    anew = MirroredRegistry(Path(shutil.copytree(empty_registry, tmp_path / "anew")), mirror=server.address)

    with pytest.raises(UserError, match="has another m version 1; push under another name"):
        anew.register("m", make_bundle(tmp_path, "second"), METRICS, TAGS)


def test_the_variable_turns_it_on_and_an_address_of_another_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_REGISTRY_URL", "http://127.0.0.1:1")
    assert isinstance(open_store(tmp_path).registry, MirroredRegistry)
    monkeypatch.setenv("MODEL_REGISTRY_URL", "127.0.0.1:1")
    with pytest.raises(UserError, match="MODEL_REGISTRY_URL: not an http or https address"):
        assert open_store(tmp_path).registry


def test_an_address_that_does_not_answer_is_one_line(bundle: Path, empty_registry: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(empty_registry, tmp_path / "mlflow"))
    away = MirroredRegistry(folder, mirror="http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1: the Kubeflow Model Registry did not take") as refusal:
        away.register("m", bundle, METRICS, TAGS)
    assert is_passing(refusal.value)
