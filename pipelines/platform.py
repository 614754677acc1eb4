"""The platform: image, volumes, resources, retries, accelerators and secrets of each step on a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from components._image import IMAGE
from elcrec.adapters.spark_cluster import SparkSettings
from elcrec.adapters.train_nodes import NodeSettings
from elcrec.config import NonNegative, Positive, Section, merge, parse_section, read_mapping

STEPS = (
    "configure",
    "resolve",
    "fetch",
    "validate",
    "require_valid",
    "sequences",
    "champion",
    "train",
    "evaluate",
    "gate",
    "push",
    "plan",
    "select",
    "recommend",
    "exposures",
    "monitor",
    "outcome",
)
"""Names allowed in `steps`."""

_SPARK_RETRIES = 2

Quantity = Annotated[str, Meta(pattern="^[0-9]+(\\.[0-9]+)?(m|[kKMGT]i?)?$")]
Cpu = Annotated[str, Meta(pattern="^[0-9]+(\\.[0-9]+)?m?$")]


class Step(Section, frozen=True, kw_only=True):
    """Resources, retries and time limit of one step."""

    cpu: Cpu = "500m"
    """CPU request."""
    cpu_limit: Cpu = "2"
    """CPU limit."""
    memory: Quantity = "4Gi"
    """Memory, both as request and as limit: a pod above its request is the first to be evicted when its machine runs
    short."""
    retries: NonNegative = 0
    """Number of retries of a failed step, for faults of networks, servers or nodes."""
    timeout_minutes: Positive = 60
    """Time after which the step is stopped."""


class Toleration(Section, frozen=True, kw_only=True):
    """A taint that pods tolerate."""

    key: str
    """Key of the taint."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """Operator of the comparison."""
    value: str | None = None
    """Value of the taint, for `Equal`."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """Effect of the taint; `None` for any."""


class Accelerator(Section, frozen=True, kw_only=True):
    """Accelerators and nodes for training."""

    resource: str = "nvidia.com/gpu"
    """Kubernetes resource that train requests."""
    count: NonNegative = 0
    """Number of accelerators per node, each for its own process; 0 trains on the CPU."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes on which training may run, with or without accelerators."""
    tolerations: list[Toleration] = []
    """Taints that pods which train with accelerators tolerate."""
    shared_memory: Quantity | None = "2Gi"
    """Size of /dev/shm, which NCCL needs, for training with accelerators or on several nodes; `None` leaves the 64 MiB
    of a container."""


class Claims(Section, frozen=True, kw_only=True):
    """PersistentVolumeClaims; an empty name mounts none."""

    store: str = ""
    """Mounted at /store: registry, feature store, profile of the last accepted log."""
    workspace: str = ""
    """Mounted at /workspace: checkpoints, so that a retried train step resumes."""
    data: str = ""
    """Mounted at /data in resolve and fetch: your own log, if it is on a claim."""


class Secret(Section, frozen=True, kw_only=True):
    """The keys of a secret, and the steps that get it."""

    keys: list[str]
    """Its keys, each an environment variable of that name, only for the step's own process; all are optional."""
    steps: list[str]
    """Steps that get them; a step that a pipeline does not have is ignored."""


class Platform(Section, frozen=True, kw_only=True):
    """The whole of platform.yaml."""

    image: str = IMAGE
    """Image of every component; pin it by digest, because this string is part of the cache's key."""
    nodes: Positive = 1
    """Number of nodes for train; two or more run as a TrainJob of Kubeflow Trainer, which needs the workspace claim."""
    trainjob: NodeSettings = NodeSettings()
    """Settings of the nodes of a TrainJob, used for two or more nodes."""
    spark: SparkSettings = SparkSettings()
    """The SparkApplication of validate and sequences, if `engine.kind` is `spark`."""
    ui: str = ""
    """Address of the Kubeflow UI, such as https://kubeflow.example/pipeline, for the link to a run; may be empty."""
    backoff_seconds: Positive = 30
    """Wait before a failed step is tried again; it doubles each time."""
    pending_minutes: NonNegative = 60
    """Time that a step's pod may wait for a machine at each attempt without losing its last attempts."""
    claims: Claims = Claims()
    """Volumes."""
    accelerator: Accelerator = Accelerator()
    """GPUs of train."""
    tolerations: list[Toleration] = []
    """Taints that the pods of every step and the nodes of a TrainJob tolerate."""
    baseline: bool = True
    """Whether to train also a model without intents, with which the report compares."""
    sweep_width: Positive = 4
    """Number of members of a sweep that train at the same time."""
    recommendation_parts: Positive = 1
    """Number of pods among which the pipeline `recommendation` divides the users."""
    secrets: dict[str, Secret] = {}
    """Secret -> its keys and the steps that get them."""
    steps: dict[str, Step] = {}
    """Step -> its resources; in the file each overrides the mapping `defaults`."""

    def __post_init__(self) -> None:
        """Check what the schema cannot express."""
        named = {*self.steps, *(step for secret in self.secrets.values() for step in secret.steps)}
        unknown = sorted(named - set(STEPS))
        if unknown:
            raise ValueError(f"no step {unknown[0]!r}; there are {', '.join(STEPS)}")
        if self.nodes > 1 and not self.claims.workspace:
            raise ValueError("nodes > 1 needs claims.workspace, which all nodes mount")
        if self.spark.executors and not (self.claims.workspace or self.spark.bucket):
            raise ValueError("spark.executors needs spark.bucket, or claims.workspace, which all executors mount")

    def on_spark(self, step: str) -> bool:
        """Return whether a step may run on a SparkApplication."""
        return step in {"validate", "sequences"} and self.spark.executors > 0

    def step(self, name: str) -> Step:
        """Return the resources of a step; a step on Spark is retried, because a driver may be preempted."""
        own = self.steps.get(name, Step())
        return msgspec.structs.replace(own, retries=max(own.retries, _SPARK_RETRIES)) if self.on_spark(name) else own

    def retry_seconds(self, name: str) -> int:
        """Return the time from a step's first attempt within which its last must have ended.

        Argo counts it from the creation of the first pod, and ends the attempt that is running when it is over.
        """
        own = self.step(name)
        waits = self.backoff_seconds * ((1 << own.retries) - 1)
        return (own.retries + 1) * 60 * (own.timeout_minutes + self.pending_minutes) + waits

    def secrets_of(self, step: str) -> dict[str, list[str]]:
        """Return the secrets that a step gets, with their keys."""
        return {name: secret.keys for name, secret in self.secrets.items() if step in secret.steps}

    @property
    def variables(self) -> list[str]:
        """The environment variables that the secrets set in any step."""
        return [key for secret in self.secrets.values() for key in secret.keys]


def load_platform(path: Path, changes: Mapping[str, Any]) -> Platform:
    """Read platform.yaml, with `changes` applied to it.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value has the wrong type or range.
    """
    document = merge(read_mapping(path), changes)
    common, steps = document.pop("defaults", {}), document.get("steps", {})
    document["steps"] = {name: merge(common, steps.get(name) or {}) for name in {*STEPS, *steps}}
    return parse_section(document, Platform, source=path, described_in="pipelines/platform.py")
