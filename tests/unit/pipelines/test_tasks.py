"""The requests of a compiled package to the cluster for each step."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from elcrec.adapters.spark_cluster import parse_spark
from elcrec.adapters.train_nodes import Nodes, parse_nodes
from elcrec.errors import UserError
from pipelines.cli import PIPELINES
from pipelines.platform import Platform, load_platform
from tests.support.packages import elcrec_pipeline, load_package

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "pipelines" / "platform.yaml"
Compile = Callable[..., "Compiled"]
COMPILED: dict[str, "Compiled"] = {}
"""Packages that tests read, by what they were compiled from."""


class Compiled:
    """A package, read by the component of a step, such as `train`."""

    def __init__(self, path: Path) -> None:
        self._spec, platform = load_package(path)
        executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.on_cluster = {name.removeprefix("exec-"): config for name, config in executors.items()}

    @property
    def steps(self) -> set[str]:
        """All steps; one that is there twice has a number behind its name."""
        return {name.removeprefix("exec-") for name in self._spec["deploymentSpec"]["executors"]}

    def secrets(self, step: str) -> dict[str, list[str]]:
        """The environment variables of a step that come from secrets, by secret."""
        found = self.on_cluster[step].get("secretAsEnv", [])
        assert all(secret["optional"] for secret in found)
        return {secret["secretName"]: [key["envVar"] for key in secret["keyToEnv"]] for secret in found}

    def variables(self, step: str) -> set[str]:
        """Every environment variable that a step's pod has by the package, which its launcher sees too."""
        config, container = (
            self.on_cluster[step],
            self._spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"],
        )
        fields = {entry["name"] for entry in config.get("fieldPathAsEnv", [])}
        return (
            fields
            | {name for names in self.secrets(step).values() for name in names}
            | {entry["name"] for entry in container.get("env", [])}
        )

    def resources(self, step: str) -> dict[str, Any]:
        return dict(self._spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"])

    def constants(self, step: str) -> dict[str, Any]:
        """The inputs of a step's task that compiling has fixed."""
        dags = [part["dag"] for part in (self._spec["root"], *self._spec["components"].values()) if "dag" in part]
        (task,) = (dag["tasks"][step] for dag in dags if step in dag["tasks"])
        inputs = task["inputs"]["parameters"].items()
        return {name: value["runtimeValue"]["constant"] for name, value in inputs if "runtimeValue" in value}

    def image(self, step: str) -> str:
        return str(self._spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["image"])

    def retries(self, step: str) -> int:
        dags = [part["dag"] for part in self._spec["components"].values() if "dag" in part]
        (task,) = (dag["tasks"][step] for dag in dags if step in dag["tasks"])
        return int(task.get("retryPolicy", {}).get("maxRetryCount", 0))

    def nodes(self) -> Nodes:
        return parse_nodes(self.constants("train")["cluster"])


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles a pipeline with the shipped platform and what is laid over it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("ELCREC_IMAGE", raising=False)

    def build(pipeline: str = "training", *options: str, **changes: object) -> Compiled:
        key = json.dumps([pipeline, options, changes])
        if key not in COMPILED:
            COMPILED[key] = compile_package(pipeline, *options, **changes)
        return COMPILED[key]

    def compile_package(pipeline: str, *options: str, **changes: object) -> Compiled:
        document: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
        for name, value in changes.items():
            document[name] = document[name] | value if isinstance(value, Mapping) else value
        (tmp_path / "platform.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        given = ["--platform", str(tmp_path / "platform.yaml"), "--output", str(tmp_path / "package.yaml")]
        assert elcrec_pipeline(["compile", pipeline, *given, *options]) == 0
        return Compiled(tmp_path / "package.yaml")

    return build


def wanted(platform: Platform, step: str) -> dict[str, list[str]]:
    getting = {name: platform.secrets[name].keys for name in WHO_GETS if step in WHO_GETS[name]}
    return {name: [f"ELCREC_SECRET_{key}" for key in keys] for name, keys in getting.items()}


WHO_GETS = {
    "elcrec-mlflow": {"champion", "train", "gate", "push", "recommend", "monitor"},
    "elcrec-s3": {"resolve", "fetch", "champion", "train", "gate", "push", "recommend", "monitor"},
    "elcrec-redis": {"gate", "push", "exposures"},
    "elcrec-feast": {"gate", "push"},
    "elcrec-user-salt": {"gate", "push", "exposures"},
    "elcrec-google": {"resolve", "fetch"},
    "elcrec-model-registry": {"push"},
    "elcrec-signing": {"push"},
    "elcrec-webhook": {"outcome"},
}


class TestSecrets:
    @pytest.mark.parametrize("pipeline", PIPELINES)
    def test_a_step_gets_the_secrets_that_it_reads_and_no_other(self, compiled: Compile, pipeline: str) -> None:
        package, platform = compiled(pipeline), load_platform(SHIPPED, {})
        for step in package.steps:
            assert package.secrets(step) == wanted(platform, step.rstrip("-0123456789")), step

    @pytest.mark.parametrize("pipeline", PIPELINES)
    def test_no_pod_has_a_variable_that_the_launcher_or_a_plugin_of_kfp_knows(
        self, compiled: Compile, pipeline: str
    ) -> None:
        package = compiled(pipeline, "--store-claim", "elcrec-store")
        for step in package.steps:
            assert {name for name in package.variables(step) if not name.startswith("ELCREC_")} == set(), step

    def test_the_platform_decides_which_steps_get_a_secret(self, compiled: Compile) -> None:
        package = compiled(secrets={"elcrec-proxy": {"keys": ["HTTPS_PROXY"], "steps": ["fetch", "recommend"]}})
        having = {step for step in package.steps if "elcrec-proxy" in package.secrets(step)}
        assert having == {"fetch"}, "recommend is a step of another pipeline"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_step_may_run_as_root(compiled: Compile, pipeline: str) -> None:
    package = compiled(pipeline)
    assert {step: package.on_cluster[step]["securityContext"] for step in package.steps} == {
        step: {"runAsNonRoot": True} for step in package.steps
    }


def test_every_step_requests_its_memory_limit(compiled: Compile) -> None:
    package = compiled("training")
    asked = {step: package.resources(step) for step in package.steps}
    assert {step for step, r in asked.items() if r["resourceMemoryRequest"] != r["resourceMemoryLimit"]} == set()


def test_every_step_tolerates_the_platform_s_taints_and_training_its_accelerators_taints(
    compiled: Compile,
) -> None:
    package = compiled(
        "training", "--accelerators", "1", tolerations=[{"key": "team", "value": "r", "operator": "Equal"}]
    )
    stood = {step: {taint["key"] for taint in package.on_cluster[step]["tolerations"]} for step in package.steps}
    training = {"train", "train-2"}
    assert {step: keys for step, keys in stood.items() if step not in training} == {
        step: {"team"} for step in package.steps - training
    }
    assert {step: stood[step] for step in training} == {step: {"team", "nvidia.com/gpu"} for step in training}


class TestOneNode:
    @pytest.mark.parametrize(("accelerators", "processes"), [("0", 1), ("1", 1), ("4", 4)])
    def test_an_accelerator_has_a_process(self, compiled: Compile, accelerators: str, processes: int) -> None:
        package = compiled("training", "--accelerators", accelerators)
        for task in ("train", "train-2"):
            given = package.constants(task)
            assert (given["processes"], given["cluster"]) == (processes, "")

    @pytest.mark.parametrize("count", [0, 1])
    def test_a_node_selector_applies_with_and_without_accelerators(self, compiled: Compile, count: int) -> None:
        package = compiled(accelerator={"count": count, "node_selector": {"pool": "training"}})
        selected = {step for step, config in package.on_cluster.items() if "nodeSelector" in config}
        assert selected == {"train", "train-2"}
        assert package.on_cluster["train"]["nodeSelector"] == {"labels": {"pool": "training"}}


class TestTrainJob:
    CLAIM = ("--nodes", "2", "--workspace-claim", "elcrec-workspace")

    def test_the_nodes_have_the_account_and_the_shared_memory_of_the_platform(self, compiled: Compile) -> None:
        nodes = compiled("training", *self.CLAIM, accelerator={"count": 2, "shared_memory": "16Gi"}).nodes()
        assert (nodes.service_account, nodes.shared_memory) == ("elcrec-trainer", "16Gi")
        assert (nodes.num_nodes, nodes.resources["nvidia.com/gpu"]) == (2, "2")

    def test_every_setting_of_the_section_reaches_the_nodes(self, compiled: Compile) -> None:
        settings = {
            "runtime": "ours",
            "service_account": "trainer",
            "environment": {"NCCL_DEBUG": "INFO"},
            "processes_per_node": 3,
        }
        package = compiled("training", *self.CLAIM, trainjob=settings)
        nodes = json.loads(package.constants("train")["cluster"])
        assert {name: nodes[name] for name in settings} == settings
        assert package.constants("train")["processes"] == 1, "the nodes start their own"

    def test_the_waiting_step_requests_little_and_the_nodes_everything(self, compiled: Compile) -> None:
        package = compiled("training", *self.CLAIM, accelerator={"count": 2, "node_selector": {"pool": "training"}})
        asked = package.resources("train")
        assert (asked["resourceCpuRequest"], asked["resourceCpuLimit"]) == ("100m", "1")
        assert (asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]) == ("2Gi", "2Gi")
        assert "accelerator" not in asked
        assert not {"nodeSelector", "tolerations", "emptyDirMounts"} & set(package.on_cluster["train"])
        assert package.nodes().resources == {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "2"}
        assert package.nodes().node_selector == {"pool": "training"}


class TestSpark:
    CLAIM = ("--workspace-claim", "elcrec-workspace")

    def test_the_steps_of_the_log_run_on_the_application_that_the_platform_describes(self, compiled: Compile) -> None:
        spark = {"executors": 6, "memory": "32g", "image": "spark:1", "labels": {"team": "r"}}
        package = compiled("training", *self.CLAIM, spark=spark)
        for step in ("validate", "sequences"):
            given = parse_spark(package.constants(step)["spark"])
            assert (given.executors, given.memory, given.image, given.labels) == (6, "32g", "spark:1", {"team": "r"})
            assert (given.workspace_claim, given.workspace) == ("elcrec-workspace", "/workspace")
            mounts = {mount["mountPath"] for mount in package.on_cluster[step]["pvcMount"]}
            assert "/workspace" in mounts
            assert package.image(step) == "spark:1"
            assert package.retries(step) == 2, "a driver may be preempted"
        assert package.image("evaluate") != "spark:1"

    def test_without_executors_there_is_no_spark_application(self, compiled: Compile) -> None:
        package = compiled("training", *self.CLAIM)
        assert {package.constants(step)["spark"] for step in ("validate", "sequences")} == {""}
        assert package.image("validate") == package.image("evaluate")

    def test_with_a_bucket_no_claim_is_needed_and_pods_get_its_keys(self, compiled: Compile) -> None:
        secrets = {"s3": {"keys": ["AWS_ACCESS_KEY_ID"], "steps": ["validate", "sequences"]}}
        package = compiled("training", spark={"executors": 2, "bucket": "s3://b/tables"}, secrets=secrets)
        for step in ("validate", "sequences"):
            given = parse_spark(package.constants(step)["spark"])
            assert (given.bucket, given.workspace_claim) == ("s3://b/tables", "")
            assert given.secrets == {"s3": ["AWS_ACCESS_KEY_ID"]}
            mounts = {mount["mountPath"] for mount in package.on_cluster[step].get("pvcMount", [])}
            assert "/workspace" not in mounts

    def test_executors_need_a_bucket_or_a_volume_that_all_mount(self) -> None:
        with pytest.raises(UserError, match=r"spark\.executors needs spark\.bucket, or claims\.workspace"):
            load_platform(SHIPPED, {"spark": {"executors": 2}})
