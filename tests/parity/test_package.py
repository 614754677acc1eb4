"""The compiled package: valid against the protos, loadable, and equal to the reviewed files."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_proto
from kfp.pipeline_spec import pipeline_spec_pb2 as proto

from elcrec.config import load_config
from elcrec.registry import OBJECTIVES
from pipelines.cli import PIPELINES
from tests.support.packages import elcrec_pipeline, load_package

REGENERATE = "make golden"


def compile_to(output: Path, *options: str) -> list[dict[str, Any]]:
    """Compile; what the same options gave before is taken as it was, as a file of a platform is not."""
    if "--platform" in options:
        compile_anew(output, *options)
    else:
        output.write_text(compiled_once(options), encoding="utf-8")
    return load_package(output)


def compile_anew(output: Path, *options: str) -> None:
    assert elcrec_pipeline(["compile", *options, "--output", str(output)]) == 0


@cache
def compiled_once(options: tuple[str, ...]) -> str:
    with TemporaryDirectory() as folder:
        compile_anew(Path(folder) / "package.yaml", *options)
        return (Path(folder) / "package.yaml").read_text(encoding="utf-8")


@pytest.fixture
def package(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.delenv("ELCREC_IMAGE", raising=False)
    return tmp_path / "package.yaml"


def tasks_of(document: dict[str, Any]) -> dict[str, Any]:
    """Every task, those inside the exit handler, conditions and loops included."""
    dags = [document["root"], *document["components"].values()]
    return {name: task for dag in dags if "dag" in dag for name, task in dag["dag"]["tasks"].items()}


def on_cluster(platform: dict[str, Any]) -> dict[str, Any]:
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): config for name, config in found.items()}


def executors(document: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("exec-"): e for name, e in document["deploymentSpec"]["executors"].items()}


def parse_strictly(document: dict[str, Any]) -> proto.PipelineSpec:
    json_format.ParseDict(document["deploymentSpec"], proto.PipelineDeploymentConfig())
    return json_format.ParseDict(document, proto.PipelineSpec())


@pytest.mark.parametrize("name", PIPELINES)
def test_the_name_of_a_run_reaches_no_step_that_may_be_cached(name: str, package: Path) -> None:
    tasks = tasks_of(compile_to(package, name)[0])
    told = {key for key, task in tasks.items() if "pipeline_job_name" in str(task.get("inputs"))}
    assert told == {"outcome"} | ({"push"} & set(tasks))
    assert not [key for key in told if tasks[key].get("cachingOptions")]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_package_equals_the_reviewed_one_satisfies_the_protos_and_compiles_to_the_same_bytes(
    name: str, package: Path, root: Path
) -> None:
    pipeline, platform = compile_to(package, name)
    text = package.read_text(encoding="utf-8")
    golden = root / "tests" / "golden" / f"{name}.yaml"
    assert text == golden.read_text(encoding="utf-8"), f"review the difference after: {REGENERATE}"
    assert parse_strictly(pipeline).pipeline_info.name == f"elcrec-{name}"
    json_format.ParseDict(platform, proto.PlatformSpec())
    for config in on_cluster(platform).values():
        json_format.ParseDict(config, kubernetes_proto.KubernetesExecutorConfig())
    kfp_components.load_component_from_file(str(package))
    compile_anew(package, name)
    assert package.read_text(encoding="utf-8") == text


def test_the_package_with_steps_on_spark_is_the_golden_one(package: Path, root: Path) -> None:
    folder = root / "tests" / "golden"
    pipeline, platform = compile_to(package, "training", "--platform", str(folder / "spark-platform.yaml"))
    golden = (folder / "spark.yaml").read_text(encoding="utf-8")
    assert package.read_text(encoding="utf-8") == golden, f"review the difference after: {REGENERATE}"
    assert parse_strictly(pipeline).pipeline_info.name == "elcrec-training"
    for config in on_cluster(platform).values():
        json_format.ParseDict(config, kubernetes_proto.KubernetesExecutorConfig())


def test_compiling_prints_only_the_path_of_the_package(root: Path, tmp_path: Path) -> None:
    program = "import sys; from pipelines.cli import main; sys.exit(main())"
    command = [sys.executable, "-W", "error", "-c", program, "compile", "--output", str(tmp_path / "p.yaml")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_every_step_mounts_the_store_and_training_the_workspace(package: Path) -> None:
    pipeline, platform = compile_to(package, "--store-claim", "elcrec-store", "--workspace-claim", "elcrec-workspace")
    mounts = {
        name: {mount["constant"]: mount["mountPath"] for mount in config.get("pvcMount", [])}
        for name, config in on_cluster(platform).items()
    }
    store = {"elcrec-store": "/store"}
    both = store | {"elcrec-workspace": "/workspace"}
    assert mounts == {name: both if name.startswith("train") else store for name in executors(pipeline)}
    given = tasks_of(pipeline)["train"]["inputs"]["parameters"]
    assert [given[name]["runtimeValue"]["constant"] for name in ("store", "workspace")] == ["/store", "/workspace"]


def test_a_claim_with_the_log_is_mounted_where_the_log_is_read(package: Path) -> None:
    platform = platform_with(package, '  data: ""', "  data: logs")
    _, config = compile_to(package, "--platform", str(platform))
    mounts = {name: executor.get("pvcMount") for name, executor in on_cluster(config).items()}
    assert {name: mount[0]["mountPath"] for name, mount in mounts.items() if mount} == dict.fromkeys(
        ("resolve", "fetch"), "/data"
    )


def test_the_run_form_is_flat_typed_and_has_the_defaults_of_the_parameters(package: Path) -> None:
    compile_to(package, "--preset", "presets/paper.yaml", "--preset", "presets/beauty.yaml")
    inputs = kfp_components.load_component_from_file(str(package)).component_spec.inputs
    assert {name: spec.type for name, spec in inputs.items() if spec.type != "String"} == {
        "batch_size": "Integer",
        "epochs": "Integer",
        "learning_rate": "Float",
        "max_regression": "Float",
        "min_ndcg": "Float",
        "num_intents": "Integer",
        "seed": "Integer",
    }
    assert {name for name, spec in inputs.items() if spec.type == "String"} == {
        "accept_drift",
        "dataset",
        "dvc_md5",
        "dvc_path",
        "dvc_repository",
        "dvc_revision",
        "file_location",
        "loss",
        "objective",
        "overrides",
    }
    defaults = {name: spec.default for name, spec in inputs.items()}
    assert (defaults["dataset"], defaults["num_intents"], defaults["min_ndcg"]) == ("beauty", 256, 0.01)


@pytest.mark.parametrize("name", ["training", "retraining", "sweep"])
def test_the_run_form_offers_the_data_sets_objectives_and_losses_that_there_are(name: str, package: Path) -> None:
    (document, _) = compile_to(package, name)
    declared = document["root"]["inputDefinitions"]["parameters"]
    assert {key: spec["literals"] for key, spec in declared.items() if "literals" in spec} == {
        "dataset": ["sample", "file", *load_config(Path("params.yaml")).fetch.sources],
        "objective": [*OBJECTIVES],
        "loss": ["bce", "softmax", "sampled_softmax"],
    }


def test_every_step_has_limits_and_a_time_out(package: Path) -> None:
    pipeline, platform = compile_to(package)
    for name, executor in executors(pipeline).items():
        resources = executor["container"]["resources"]
        assert {"resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(
            resources
        )
        assert int(on_cluster(platform)[name]["activeDeadlineSeconds"]) >= 300


def test_what_a_retry_helps_is_tried_again(package: Path) -> None:
    (document, _) = compile_to(package)
    retried = {
        name: task["retryPolicy"]["maxRetryCount"] for name, task in tasks_of(document).items() if "retryPolicy" in task
    }
    steps = ("resolve", "fetch", "train", "train-2", "push", "validate", "sequences")
    assert {name: retried.get(name) for name in steps} == {
        "resolve": 3,
        "fetch": 3,
        "train": 2,
        "train-2": 2,
        "push": 3,
        "validate": None,
        "sequences": None,
    }
    (retraining, _) = compile_to(package, "retraining")
    assert tasks_of(retraining)["champion"]["retryPolicy"]["maxRetryCount"] == 2


def test_every_step_uses_our_entry_point_and_knows_its_run_and_result_file(package: Path) -> None:
    document, platform = compile_to(package, "--store-claim", "elcrec-store")
    for name, executor in executors(document).items():
        container = executor["container"]
        assert container["command"][2].count("python3 -m components._step kfp.dsl.executor_main ") == 1, name
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        step = {"train-2": "baseline"}.get(name, name.replace("-", "_"))
        assert (env["ELCREC_STEP"], env["ELCREC_RESULTS"]) == (step, "/store/runs")
        fields = {entry["name"]: entry["fieldPath"] for entry in on_cluster(platform)[name]["fieldPathAsEnv"]}
        assert fields == {
            "ELCREC_RUN_ID": "metadata.labels['pipeline/runid']",
            "ELCREC_NAMESPACE": "metadata.namespace",
        }
    unkept, _ = compile_to(package)
    told = {entry["name"] for executor in executors(unkept).values() for entry in executor["container"]["env"]}
    assert "ELCREC_RESULTS" not in told


def test_the_outcome_is_reported_whatever_happens(package: Path) -> None:
    (document, _) = compile_to(package)
    task = document["root"]["dag"]["tasks"]["outcome"]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert set(document["root"]["dag"]["tasks"]) == {"exit-handler-1", "outcome"}


def test_an_image_named_at_compile_time_runs_every_component(package: Path) -> None:
    (document, _) = compile_to(package, "--image", "registry.example/elcrec@sha256:0")
    images = {executor["container"]["image"] for executor in executors(document).values()}
    assert images == {"registry.example/elcrec@sha256:0"}
    told = [executor["container"]["env"] for executor in executors(document).values()]
    assert all({"name": "ELCREC_IMAGE", "value": "registry.example/elcrec@sha256:0"} in env for env in told)


@pytest.mark.parametrize(("count", "expected"), [("0", set()), ("2", {"train", "train-2"})])
def test_only_training_requests_accelerators_and_their_resources(package: Path, count: str, expected: set[str]) -> None:
    document, platform = compile_to(package, "--accelerators", count)
    asking = {
        name: executor["container"]["resources"]["accelerator"]
        for name, executor in executors(document).items()
        if "accelerator" in executor["container"]["resources"]
    }
    assert set(asking) == expected
    assert all(a["resourceType"] == "nvidia.com/gpu" and a["resourceCount"] == count for a in asking.values())
    cluster = on_cluster(platform)
    for what in ("tolerations", "emptyDirMounts"):
        assert {name for name, config in cluster.items() if what in config} == expected
    for name in expected:
        (memory,) = cluster[name]["emptyDirMounts"]
        assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")


@pytest.mark.parametrize(
    ("name", "stateful"),
    [
        ("training", {"resolve", "gate", "push"}),
        ("retraining", {"resolve", "champion", "gate", "push"}),
        ("sweep", {"resolve", "gate", "push"}),
        ("recommendation", {"recommend"}),
        ("monitoring", {"exposures", "monitor", "resolve", "champion", "gate", "push"}),
    ],
)
def test_state_is_never_read_from_the_cache(name: str, stateful: set[str], package: Path) -> None:
    (document, _) = compile_to(package, name)
    components = document["components"]
    steps = {
        name: t for name, t in tasks_of(document).items() if "executorLabel" in components[t["componentRef"]["name"]]
    }
    cached = {name for name, task in steps.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert set(steps) - cached == {"outcome"} | stateful


@pytest.mark.parametrize("name", ["training", "retraining", "sweep"])
def test_fetch_uses_the_resolved_version_and_sequences_wait_for_a_valid_log(name: str, package: Path) -> None:
    (document, _) = compile_to(package, name)
    tasks = tasks_of(document)
    found = {
        name: (source["taskOutputParameter"]["producerTask"], source["taskOutputParameter"]["outputParameterKey"])
        for name, source in tasks["fetch"]["inputs"]["parameters"].items()
        if "taskOutputParameter" in source
    }
    assert found == {
        "config": ("resolve", "config"),
        "dvc_revision": ("resolve", "commit"),
        "dvc_md5": ("resolve", "md5"),
    }
    assert "require-valid" in tasks["sequences"]["dependentTasks"]


def test_the_monitor_retrains_from_the_champion_only_on_request(package: Path) -> None:
    (document, _) = compile_to(package, "monitoring")
    (always,) = (part["dag"]["tasks"] for name, part in document["components"].items() if "exit-handler" in name)
    (asked,) = (task for task in always.values() if "triggerPolicy" in task)
    assert "pipelinechannel--monitor-Output" in asked["triggerPolicy"]["condition"]
    assert {"configure", "exposures", "monitor"} == {name for name, task in always.items() if task is not asked}
    branch = document["components"][asked["componentRef"]["name"]]["dag"]["tasks"]
    retraining = tasks_of(compile_to(package, "retraining")[0]).keys() - {"configure", "outcome"}
    assert {name for name in retraining if not name.startswith(("condition", "exit"))} - {"push"} <= branch.keys()


def platform_with(package: Path, old: str, new: str) -> Path:
    """Write the shipped platform beside the package with one line replaced."""
    shipped = Path("pipelines/platform.yaml").read_text(encoding="utf-8")
    assert shipped.count(old) == 1
    path = package.with_name("platform.yaml")
    path.write_text(shipped.replace(old, new), encoding="utf-8")
    return path


def test_without_a_baseline_one_model_is_trained_and_the_report_does_without(package: Path) -> None:
    platform = platform_with(package, "baseline: true", "baseline: false")
    (document, _) = compile_to(package, "--platform", str(platform))
    assert "train-2" not in tasks_of(document)
    assert "baseline" not in tasks_of(document)["evaluate"]["inputs"]["artifacts"]


def test_push_waits_for_the_gate(package: Path) -> None:
    (document, _) = compile_to(package)
    (condition,) = (task for name, task in tasks_of(document).items() if name.startswith("condition"))
    assert "gate" in condition["dependentTasks"]
    assert "== true" in condition["triggerPolicy"]["condition"]


def test_a_retraining_starts_from_the_champion_and_its_baseline_does_not(package: Path) -> None:
    (document, _) = compile_to(package, "retraining")
    tasks = tasks_of(document)
    assert tasks["train"]["inputs"]["parameters"]["warm_start"]["taskOutputParameter"]["producerTask"] == "champion"
    assert tasks["train-2"]["inputs"]["parameters"]["warm_start"]["runtimeValue"]["constant"] == ""


def test_a_sweep_trains_in_a_loop_and_judges_the_selected_model(package: Path) -> None:
    (document, _) = compile_to(package, "sweep")
    tasks = tasks_of(document)
    (loop,) = (task for task in tasks.values() if "parameterIterator" in task)
    assert loop["iteratorPolicy"]["parallelismLimit"] == 4
    wider = platform_with(package, "sweep_width: 4", "sweep_width: 16")
    (document, _) = compile_to(package, "sweep", "--platform", str(wider))
    (loop,) = (task for task in tasks_of(document).values() if "parameterIterator" in task)
    assert loop["iteratorPolicy"]["parallelismLimit"] == 16
    assert tasks["evaluate"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]["producerTask"] == "select"
    assert "grid" in document["root"]["inputDefinitions"]["parameters"]


def test_several_pods_share_the_users_of_a_recommendation(package: Path) -> None:
    shared = platform_with(package, "recommendation_parts: 1", "recommendation_parts: 3")
    (document, _) = compile_to(package, "recommendation", "--platform", str(shared))
    tasks = [task for task in tasks_of(document).values() if "part" in task["inputs"].get("parameters", {})]
    parts = [task["inputs"]["parameters"]["part"]["runtimeValue"]["constant"] for task in tasks]
    assert sorted(parts) == ["1/3", "2/3", "3/3"]
    assert sorted(task["taskInfo"]["name"] for task in tasks) == ["recommend-1", "recommend-2", "recommend-3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--nodes", "2"), "needs claims.workspace"),
        (("--accelerators", "-1"), "accelerator.count"),
        (("--platform", "absent.yaml"), "absent.yaml: no such file"),
    ],
)
def test_a_platform_that_cannot_be_is_one_clear_line(
    package: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert elcrec_pipeline(["compile", *options, "--output", str(package)]) == 2
    assert message in capsys.readouterr().err
    assert not package.exists()


def test_an_unknown_parameter_file_is_one_clear_line(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert elcrec_pipeline(["compile", "--params", "absent.yaml", "--output", str(package)]) == 2
    assert "absent.yaml: no such file" in capsys.readouterr().err
    assert not package.exists()
