"""Tasks of a pipeline with what the platform gives them."""

from typing import Any

import msgspec
from kfp import kubernetes

from elcrec.adapters.train_job import Nodes
from elcrec.adapters.train_job import Toleration as NodeToleration
from elcrec.config import to_dict
from pipelines.platform import Accelerator, Platform, Step

STORE_MOUNT = "/store"
WORKSPACE_MOUNT = "/workspace"
LOCAL_STORE = "artifacts/store"
_STATEFUL = {"resolve", "champion", "gate", "push", "recommend", "outcome"}
"""Steps that read or write what is outside the run: never taken from the cache.

train only reads the champion that its parameter names by digest, and fetch the commit and md5 that resolve named.
validate compares with the last accepted log, but what it said of this very log under these settings stands; were it
asked anew, its new artifact would make all that follows run again, training included.
"""
_STORE = {"validate", "champion", "train", "gate", "push", "recommend"}
_LAUNCHER = {"cpu": "100m", "cpu_limit": "1", "memory": "512Mi", "memory_limit": "2Gi"}
"""Resources of a step that hands its work to a TrainJob, waits for it and copies the model."""


def store_of(platform: Platform) -> str:
    """Return the default of the parameter `store`."""
    return STORE_MOUNT if platform.claims.store else LOCAL_STORE


def workspace_of(platform: Platform) -> str:
    """Return the default of the parameter `workspace`; empty without a claim."""
    return WORKSPACE_MOUNT if platform.claims.workspace else ""


def cluster_of(platform: Platform) -> str:
    """Return what component train is told of several nodes, as JSON; empty where one pod trains by itself."""
    if platform.nodes == 1:
        return ""
    step, gpu = platform.step("train"), platform.accelerator
    resources = {"cpu": step.cpu_limit, "memory": step.memory_limit}
    nodes = Nodes(
        image=platform.image,
        workspace_claim=platform.claims.workspace,
        workspace=WORKSPACE_MOUNT,
        num_nodes=platform.nodes,
        resources=resources | ({gpu.resource: str(gpu.count)} if gpu.count else {}),
        node_selector=gpu.node_selector,
        shared_memory=gpu.shared_memory,
        tolerations=tuple(NodeToleration(**to_dict(taint)) for taint in gpu.tolerations) if gpu.count else (),
        timeout_seconds=60 * step.timeout_minutes,
        **to_dict(platform.trainjob),
    )
    return msgspec.json.encode(nodes).decode()


def processes_of(platform: Platform) -> int:
    """Return how many processes train in the pod of component train: one an accelerator; nodes start their own."""
    return max(platform.accelerator.count, 1) if platform.nodes == 1 else 1


def place(task: Any, step: str, platform: Platform) -> Any:
    """Give a task its image, resources, patience, volumes, secrets and, for train, accelerators; return it."""
    own = _resources(step, platform)
    task.set_container_image(platform.image)
    task.set_env_variable("ELCREC_IMAGE", platform.image)  # a container cannot ask what it was started from
    task.set_cpu_request(own.cpu).set_cpu_limit(own.cpu_limit)
    task.set_memory_request(own.memory).set_memory_limit(own.memory_limit)
    if own.retries:
        backoff = {"backoff_duration": f"{platform.backoff_seconds}s", "backoff_max_duration": "600s"}
        task.set_retry(own.retries, backoff_factor=2.0, **backoff)
    kubernetes.set_timeout(task, 60 * own.timeout_minutes)
    if step in _STATEFUL:
        task.set_caching_options(enable_caching=False)
    if platform.claims.store and step in _STORE:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.store, mount_path=STORE_MOUNT)
    for secret, names in platform.secrets_of(step).items():
        kubernetes.use_secret_as_env(task, secret, {name: name for name in names}, optional=True)
    # The one thing that the pod security standard `restricted` asks of a step and KFP leaves to the pipeline.
    kubernetes.set_security_context(task, run_as_non_root=True)
    if step == "train":
        _place_training(task, platform)
    return task


def _resources(step: str, platform: Platform) -> Step:
    own = platform.step(step)
    return msgspec.structs.replace(own, **_LAUNCHER) if step == "train" and platform.nodes > 1 else own


def _place_training(task: Any, platform: Platform) -> None:
    gpu = platform.accelerator
    if platform.claims.workspace:
        kubernetes.mount_pvc(task, pvc_name=platform.claims.workspace, mount_path=WORKSPACE_MOUNT)
    # Where several nodes train, this pod only waits for them.
    if platform.nodes > 1:
        return
    for label, value in gpu.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    if gpu.count:
        _add_accelerators(task, gpu)


def _add_accelerators(task: Any, gpu: Accelerator) -> None:
    task.set_accelerator_type(gpu.resource).set_accelerator_limit(gpu.count)
    for taint in gpu.tolerations:
        kubernetes.add_toleration(task, key=taint.key, operator=taint.operator, value=taint.value, effect=taint.effect)
    if gpu.shared_memory:
        options = {"medium": "Memory", "size_limit": gpu.shared_memory}
        kubernetes.empty_dir_mount(task, volume_name="shared-memory", mount_path="/dev/shm", **options)  # noqa: S108
