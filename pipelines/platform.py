"""What a cluster gives each step: image, volumes, resources, retries, accelerators, secrets."""

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
"""What `steps` may name."""

_SPARK_RETRIES = 2

Quantity = Annotated[str, Meta(pattern="^[0-9]+(\\.[0-9]+)?(m|[kKMGT]i?)?$")]
Cpu = Annotated[str, Meta(pattern="^[0-9]+(\\.[0-9]+)?m?$")]


class Step(Section, frozen=True, kw_only=True):
    """Resources and patience of one step."""

    cpu: Cpu = "500m"
    """CPU request."""
    cpu_limit: Cpu = "2"
    """CPU limit."""
    memory: Quantity = "4Gi"
    """Memory, as request and as limit: a pod that holds more than it asked for is the first to go when its machine
    runs short."""
    retries: NonNegative = 0
    """How often a failed step is tried again; for what a retry helps: networks, servers, lost nodes."""
    timeout_minutes: Positive = 60
    """The step is stopped after so long."""


class Toleration(Section, frozen=True, kw_only=True):
    """A taint that pods may stand on."""

    key: str
    """Key of the taint."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """How it is compared."""
    value: str | None = None
    """Its value, for `Equal`."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """Its effect; `None` is any."""


class Accelerator(Section, frozen=True, kw_only=True):
    """Where training runs."""

    resource: str = "nvidia.com/gpu"
    """Kubernetes resource that train asks for."""
    count: NonNegative = 0
    """How many of it a node gives, each to a process of its own; 0 trains on the CPU."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that training may run on, with accelerators or without."""
    tolerations: list[Toleration] = []
    """Taints that pods which train with accelerators stand."""
    shared_memory: Quantity | None = "2Gi"
    """Size of /dev/shm where accelerators or several nodes train, which NCCL needs; `None` leaves the 64 MiB of a
    container."""


class Claims(Section, frozen=True, kw_only=True):
    """PersistentVolumeClaims; an empty name mounts none."""

    store: str = ""
    """Mounted at /store: registry, feature store, profile of the last accepted log."""
    workspace: str = ""
    """Mounted at /workspace: checkpoints, so that a train step that is tried again resumes."""
    data: str = ""
    """Mounted at /data in resolve and fetch: your own log, where it lies on a claim."""


class Secret(Section, frozen=True, kw_only=True):
    """A secret and who gets it."""

    keys: list[str]
    """Its keys, each an environment variable of that name to the step's own process alone; all are optional."""
    steps: list[str]
    """Steps that get them; a step that a pipeline does not have is ignored."""


class Platform(Section, frozen=True, kw_only=True):
    """The whole of platform.yaml."""

    image: str = IMAGE
    """Image of every component; pin it by digest, as the cache goes by this string."""
    nodes: Positive = 1
    """Nodes that train runs on; from two on as a TrainJob of Kubeflow Trainer, which needs the workspace claim."""
    trainjob: NodeSettings = NodeSettings()
    """What the nodes of a TrainJob get, where there are two or more."""
    spark: SparkSettings = SparkSettings()
    """The SparkApplication of validate and sequences, where `engine.kind` is `spark`."""
    ui: str = ""
    """Address of the Kubeflow UI, such as https://kubeflow.example/pipeline, for the link to a run; may be empty."""
    backoff_seconds: Positive = 30
    """Wait before a failed step is tried again; doubled each time."""
    pending_minutes: NonNegative = 60
    """How long a step's pod may wait for a machine, at each attempt, before that costs it its last attempts."""
    claims: Claims = Claims()
    """Volumes."""
    accelerator: Accelerator = Accelerator()
    """GPUs of train."""
    tolerations: list[Toleration] = []
    """Taints that the pods of every step stand, and the nodes of a TrainJob."""
    baseline: bool = True
    """Whether a model without intents is trained beside, which the report compares with."""
    sweep_width: Positive = 4
    """Members of a sweep that train at a time."""
    recommendation_parts: Positive = 1
    """Pods that share the users of the pipeline `recommendation`."""
    secrets: dict[str, Secret] = {}
    """Secret -> its keys and the steps that get them."""
    steps: dict[str, Step] = {}
    """Step -> its resources; in the file each is laid over the mapping `defaults`."""

    def __post_init__(self) -> None:
        """Check what the schema cannot say."""
        named = {*self.steps, *(step for secret in self.secrets.values() for step in secret.steps)}
        unknown = sorted(named - set(STEPS))
        if unknown:
            raise ValueError(f"no step {unknown[0]!r}; there are {', '.join(STEPS)}")
        if self.nodes > 1 and not self.claims.workspace:
            raise ValueError("nodes > 1 needs claims.workspace, where the nodes meet")
        if self.spark.executors and not (self.claims.workspace or self.spark.bucket):
            raise ValueError("spark.executors needs spark.bucket, or claims.workspace, which all executors mount")

    def on_spark(self, step: str) -> bool:
        """Say whether a step may run on a SparkApplication."""
        return step in {"validate", "sequences"} and self.spark.executors > 0

    def step(self, name: str) -> Step:
        """Return the resources of a step; one on Spark is tried again, as a driver may be preempted."""
        own = self.steps.get(name, Step())
        return msgspec.structs.replace(own, retries=max(own.retries, _SPARK_RETRIES)) if self.on_spark(name) else own

    def retry_seconds(self, name: str) -> int:
        """Return the time from a step's first attempt within which its last must have ended.

        Argo counts it from the moment that the first pod is created, and ends the attempt that runs when it is over.
        """
        own = self.step(name)
        waits = self.backoff_seconds * ((1 << own.retries) - 1)
        return (own.retries + 1) * 60 * (own.timeout_minutes + self.pending_minutes) + waits

    def secrets_of(self, step: str) -> dict[str, list[str]]:
        """Return the secrets that a step gets, with their keys."""
        return {name: secret.keys for name, secret in self.secrets.items() if step in secret.steps}

    @property
    def variables(self) -> list[str]:
        """The environment variables that the secrets set in one step or another."""
        return [key for secret in self.secrets.values() for key in secret.keys]


def load_platform(path: Path, changes: Mapping[str, Any]) -> Platform:
    """Read platform.yaml, with `changes` laid over it.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value has the wrong type or range.
    """
    document = merge(read_mapping(path), changes)
    common, steps = document.pop("defaults", {}), document.get("steps", {})
    document["steps"] = {name: merge(common, steps.get(name) or {}) for name in {*STEPS, *steps}}
    return parse_section(document, Platform, source=path, described_in="pipelines/platform.py")
