"""Placing tasks of a pipeline on the platform."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from kfp import dsl, kubernetes

from components._step import SECRET
from elcrec.adapters.spark_cluster import SparkCluster
from elcrec.adapters.train_nodes import Nodes
from elcrec.adapters.train_nodes import Toleration as NodeToleration
from elcrec.config import to_dict
from pipelines.platform import Accelerator, Platform, Step, Toleration

STORE_MOUNT = "/store"
WORKSPACE_MOUNT = "/workspace"
DATA_MOUNT = "/data"
LOCAL_STORE = "artifacts/store"
_STATEFUL = {"resolve", "champion", "gate", "push", "recommend", "exposures", "monitor", "outcome"}
"""Steps that read or write data outside the run, and so are never taken from the cache.

train reads only the champion that its parameter names by digest, and fetch only the version that resolve named.
validate compares with the last accepted log, but its verdict on the same log under the same settings remains valid; a
new verdict would be a new artifact and make all later steps run again, including training.
"""
RUN_NAME = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
"""The run's display name. It is an input, because a pod's labels lack it, and only of steps that are not cached."""
_EXECUTOR = "kfp.dsl.executor_main"
_LAUNCHER = {"cpu": "100m", "cpu_limit": "1", "memory": "2Gi"}
"""Resources of a step that starts a TrainJob, waits for it and copies the model."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders that outlive pods."""

    store: str
    """The registry, the feature store and the profile of the last accepted log."""
    workspace: str
    """Checkpoints; empty keeps them in the pod."""


def places_on(platform: Platform) -> Places:
    """Return the mounted folders on a cluster; a store without a claim is deleted with the pod."""
    claims = platform.claims
    return Places(
        store=STORE_MOUNT if claims.store else LOCAL_STORE, workspace=WORKSPACE_MOUNT if claims.workspace else ""
    )


def cluster_of(platform: Platform) -> str:
    """Return the description of several nodes for component train, as JSON; empty for training in one pod."""
    if platform.nodes == 1:
        return ""
    step, gpu = platform.step("train"), platform.accelerator
    resources = {"cpu": step.cpu_limit, "memory": step.memory}
    nodes = Nodes(
        image=platform.image,
        workspace_claim=platform.claims.workspace,
        workspace=WORKSPACE_MOUNT,
        num_nodes=platform.nodes,
        resources=resources | ({gpu.resource: str(gpu.count)} if gpu.count else {}),
        node_selector=gpu.node_selector,
        shared_memory=gpu.shared_memory,
        tolerations=tuple(NodeToleration(**to_dict(taint)) for taint in _tolerated(platform)),
        timeout_seconds=60 * step.timeout_minutes,
        **to_dict(platform.trainjob),
    )
    return msgspec.json.encode(nodes).decode()


def spark_of(platform: Platform) -> str:
    """Return the description of a SparkApplication for validate and sequences, as JSON; empty if there is none."""
    if not platform.spark.executors:
        return ""
    cluster = SparkCluster(
        workspace_claim=platform.claims.workspace,
        secrets=_secrets_on_spark(platform),
        workspace=WORKSPACE_MOUNT,
        tolerations=tuple(NodeToleration(**to_dict(taint)) for taint in platform.tolerations),
        timeout_seconds=60 * max(platform.pending_minutes, 1),
        **to_dict(platform.spark),
    )
    return msgspec.json.encode(cluster).decode()


def _secrets_on_spark(platform: Platform) -> dict[str, list[str]]:
    """Return what driver and executors get to reach a bucket: what the steps get that hand them tables."""
    if not platform.spark.bucket:
        return {}
    return platform.secrets_of("validate") | platform.secrets_of("sequences")


def _tolerated(platform: Platform) -> list[Toleration]:
    """Return the taints that training pods tolerate."""
    gpu = platform.accelerator
    return [*platform.tolerations, *(gpu.tolerations if gpu.count else [])]


def processes_of(platform: Platform) -> int:
    """Return the number of processes in the pod of component train: one per accelerator; nodes start their own."""
    return max(platform.accelerator.count, 1) if platform.nodes == 1 else 1


def place(task: Any, step: str, platform: Platform, *, name: str | None = None) -> Any:
    """Set a task's image, resources, retries, volumes, secrets and, for train, accelerators; return it.

    Args:
        task: The task.
        step: Its component.
        platform: The platform.
        name: Its name in the UI and in messages, if not that of its component.
    """
    _set_container(task, step, platform)
    _set_patience(task, step, platform)
    if name:
        task.set_display_name(name)
    if step in _STATEFUL:
        task.set_caching_options(enable_caching=False)
    for secret, keys in platform.secrets_of(step).items():
        kubernetes.use_secret_as_env(task, secret, {key: f"{SECRET}{key}" for key in keys}, optional=True)
    _set_record(task, name or step, platform)
    _tolerate(task, platform.tolerations)
    # The only requirement of the pod security standard `restricted` that KFP leaves to the pipeline.
    kubernetes.set_security_context(task, run_as_non_root=True)
    if step in {"resolve", "fetch"} and platform.claims.data:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.data, mount_path=DATA_MOUNT)
    if platform.on_spark(step) and not platform.spark.bucket:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.workspace, mount_path=WORKSPACE_MOUNT)
    if step == "train":
        _place_training(task, platform)
    return task


def _set_container(task: Any, step: str, platform: Platform) -> None:
    own = _resources(step, platform)
    image = platform.spark.image if platform.on_spark(step) else platform.image
    task.set_container_image(image)
    task.set_env_variable("ELCREC_IMAGE", image)  # a container cannot find out from which image it was started
    task.set_cpu_request(own.cpu).set_cpu_limit(own.cpu_limit)
    task.set_memory_request(own.memory).set_memory_limit(own.memory)
    container = task.container_spec
    container.command = [
        part.replace(f"-m {_EXECUTOR}", f"-m components._step {_EXECUTOR}") for part in container.command
    ]


def _set_patience(task: Any, step: str, platform: Platform) -> None:
    own = platform.step(step)
    if own.retries:
        within = f"{platform.retry_seconds(step)}s"
        backoff = {"backoff_duration": f"{platform.backoff_seconds}s", "backoff_max_duration": within}
        task.set_retry(own.retries, backoff_factor=2.0, **backoff)
    kubernetes.set_timeout(task, 60 * own.timeout_minutes)


def _set_record(task: Any, name: str, platform: Platform) -> None:
    """Tell a step its name and the folder for its result: on the store's claim, which all steps mount."""
    task.set_env_variable("ELCREC_STEP", name)
    kubernetes.use_field_path_as_env(task, "ELCREC_RUN_ID", "metadata.labels['pipeline/runid']")
    kubernetes.use_field_path_as_env(task, "ELCREC_NAMESPACE", "metadata.namespace")
    if platform.ui:
        task.set_env_variable("ELCREC_UI", platform.ui.rstrip("/"))
    if platform.claims.store:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.store, mount_path=STORE_MOUNT)
        task.set_env_variable("ELCREC_RESULTS", f"{STORE_MOUNT}/runs")


def _tolerate(task: Any, taints: Sequence[Toleration]) -> None:
    for taint in taints:
        kubernetes.add_toleration(task, key=taint.key, operator=taint.operator, value=taint.value, effect=taint.effect)


def _resources(step: str, platform: Platform) -> Step:
    own = platform.step(step)
    return msgspec.structs.replace(own, **_LAUNCHER) if step == "train" and platform.nodes > 1 else own


def _place_training(task: Any, platform: Platform) -> None:
    gpu = platform.accelerator
    if platform.claims.workspace:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.workspace, mount_path=WORKSPACE_MOUNT)
    # With several nodes, this pod only waits for them.
    if platform.nodes > 1:
        return
    for label, value in gpu.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    if gpu.count:
        _add_accelerators(task, gpu)


def _add_accelerators(task: Any, gpu: Accelerator) -> None:
    task.set_accelerator_type(gpu.resource).set_accelerator_limit(gpu.count)
    _tolerate(task, gpu.tolerations)
    if gpu.shared_memory:
        options = {"medium": "Memory", "size_limit": gpu.shared_memory}
        kubernetes.empty_dir_mount(task, volume_name="shared-memory", mount_path="/dev/shm", **options)  # noqa: S108
