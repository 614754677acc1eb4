"""The compiled package: valid against the protos, loadable, and as reviewed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_proto
from kfp.pipeline_spec import pipeline_spec_pb2 as proto

from pipelines.cli import main

REGENERATE = "make golden"


def compile_to(output: Path, *options: str) -> list[dict[str, Any]]:
    assert main(["compile", "--output", str(output), *options]) == 0
    return list(yaml.safe_load_all(output.read_text(encoding="utf-8")))


@pytest.fixture
def package(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.delenv("ELCREC_IMAGE", raising=False)
    return tmp_path / "package.yaml"


def executors(document: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("exec-"): e for name, e in document["deploymentSpec"]["executors"].items()}


def parse_strictly(document: dict[str, Any]) -> proto.PipelineSpec:
    json_format.ParseDict(document["deploymentSpec"], proto.PipelineDeploymentConfig())
    return json_format.ParseDict(document, proto.PipelineSpec())


def test_the_package_equals_the_reviewed_one(package: Path, root: Path) -> None:
    compile_to(package)
    golden = root / "tests" / "golden" / "training_pipeline.yaml"
    same = package.read_text(encoding="utf-8") == golden.read_text(encoding="utf-8")
    assert same, f"review the difference after: {REGENERATE}"


def test_the_package_satisfies_the_protos(package: Path) -> None:
    (document,) = compile_to(package)
    spec = parse_strictly(document)
    assert spec.pipeline_info.name == "elcrec-training"


def test_a_store_claim_adds_a_valid_platform_document(package: Path) -> None:
    pipeline, platform = compile_to(package, "--store-claim", "elcrec-store")
    parse_strictly(pipeline)
    json_format.ParseDict(platform, proto.PlatformSpec())
    mounting = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for config in mounting.values():
        json_format.ParseDict(config, kubernetes_proto.KubernetesExecutorConfig())
        assert config["pvcMount"][0]["mountPath"] == "/store"
    assert sorted(mounting) == ["exec-gate", "exec-push", "exec-validate"]
    assert pipeline["root"]["inputDefinitions"]["parameters"]["store"]["defaultValue"] == "/store"


def test_the_package_loads_back(package: Path) -> None:
    compile_to(package)
    loaded = kfp_components.load_component_from_file(str(package))
    assert sorted(loaded.component_spec.inputs) == [
        "dataset",
        "dvc_md5",
        "dvc_path",
        "dvc_repository",
        "dvc_revision",
        "overrides",
        "store",
    ]


def test_an_image_named_at_compile_time_runs_every_component(package: Path) -> None:
    (document,) = compile_to(package, "--image", "registry.example/elcrec@sha256:0")
    images = {executor["container"]["image"] for executor in executors(document).values()}
    assert images == {"registry.example/elcrec@sha256:0"}


@pytest.mark.parametrize(("count", "expected"), [("0", set()), ("2", {"train", "train-2"})])
def test_only_training_asks_for_accelerators(package: Path, count: str, expected: set[str]) -> None:
    (document,) = compile_to(package, "--accelerators", count)
    asking = {
        name: executor["container"]["resources"]["accelerator"]
        for name, executor in executors(document).items()
        if "accelerator" in executor["container"].get("resources", {})
    }
    assert set(asking) == expected
    assert all(a["resourceType"] == "nvidia.com/gpu" and a["resourceCount"] == count for a in asking.values())


def test_state_is_never_read_from_the_cache(package: Path) -> None:
    (document,) = compile_to(package)
    tasks = document["root"]["dag"]["tasks"] | document["components"]["comp-condition-1"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert set(tasks) - cached - {"condition-1"} == {"gate", "push"}


def test_push_waits_for_the_gate(package: Path) -> None:
    (document,) = compile_to(package)
    condition = document["root"]["dag"]["tasks"]["condition-1"]
    assert "gate" in condition["dependentTasks"]
    assert "== true" in condition["triggerPolicy"]["condition"]


def test_defaults_come_from_the_preset(package: Path) -> None:
    (document,) = compile_to(package, "--preset", "presets/beauty.yaml")
    parameters = document["root"]["inputDefinitions"]["parameters"]
    configure = document["root"]["dag"]["tasks"]["configure"]["inputs"]["parameters"]
    defaults = json.loads(configure["defaults"]["runtimeValue"]["constant"])
    assert parameters["dataset"]["defaultValue"] == "beauty"
    assert defaults["train"]["intents"]["num_intents"] == 256


def test_an_unknown_parameter_file_is_one_clear_line(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--params", "absent.yaml", "--output", str(package)]) == 2
    assert "absent.yaml: no such file" in capsys.readouterr().err
    assert not package.exists()
