"""The nodes that train: the settings by a cluster's owner, and the resulting request for a TrainJob."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from elcrec.adapters.quiet import quiet
from elcrec.config import Positive, Section, to_dict
from elcrec.errors import UserError

PRIVILEGES = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_PRIVILEGES = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
"""Together with PRIVILEGES, the requirements of the pod security standard `restricted`."""
LABELS = {"app.kubernetes.io/name": "elcrec-training"}
"""Labels of every TrainJob. Not `part-of: elcrec`: deploy/base/network.yaml denies such pods the access that nodes
need."""
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""Disables Istio's proxy on nodes: with a proxy, a node would never end, and torch could not reach its peers."""


class Toleration(Section, frozen=True, kw_only=True):
    """A tolerated taint of the machines, in the form of Kubernetes."""

    key: str
    """The taint's key."""
    operator: str = "Exists"
    """`Exists`, or `Equal` to `value`."""
    value: str | None = None
    """The taint's value."""
    effect: str | None = None
    """`NoSchedule` or `NoExecute`; `None` for all effects."""


class NodeSettings(Section, frozen=True, kw_only=True):
    """Settings by a cluster's owner for the nodes, besides their number and their machines."""

    runtime: Annotated[str, Meta(min_length=1)] = "torch-distributed"
    """The training runtime."""
    service_account: str | None = "elcrec-trainer"
    """Kubernetes service account of the nodes, which need no permission; `None`: the namespace's `default`."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Environment variables of the nodes; the runtime sets `PET_*`."""
    processes_per_node: Positive | None = None
    """Number of processes on a node; `None`: one per GPU, or without GPUs one per CPU."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels of the job, such as Kueue's `kueue.x-k8s.io/queue-name` and `kueue.x-k8s.io/priority-class`, or a team."""

    def __post_init__(self) -> None:
        """Check what the schema cannot express."""
        for name in self.environment:
            if name.startswith("PET_"):
                raise ValueError(f"{name} is set by the runtime; leave it out")


class Owner(Section, frozen=True, kw_only=True):
    """The pod with which the job is deleted: that of the step that waits for the job, and is deleted with the run."""

    name: str
    """Its name."""
    uid: str
    """Its uid."""

    @property
    def reference(self) -> dict[str, str]:
        """The entry of `ownerReferences`."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}


class Nodes(NodeSettings, frozen=True, kw_only=True):
    """Place and resources of the nodes."""

    image: str
    """Our image; the nodes run `torchrun` in it."""
    workspace_claim: str
    """PersistentVolumeClaim that every node mounts; it must be ReadWriteMany unless all are on one machine."""
    workspace: str = "/workspace"
    """Path at which it is mounted, on the nodes and here."""
    num_nodes: Positive = 2
    """Number of nodes."""
    resources: dict[str, str] = msgspec.field(default_factory=dict)
    """Requests and limits of a node, such as `{"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}`."""
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels that the machines must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that are tolerated on the machines."""
    shared_memory: str | None = "2Gi"
    """Size of /dev/shm on a node, which NCCL needs; `None` leaves the 64 MiB of a container."""
    timeout_seconds: Positive = 86400
    """Longest time in seconds from the creation of the job to its end."""
    owner: Owner | None = None
    """Pod with which the job is deleted; `None`: it stays until someone deletes it."""


def parse_nodes(text: str) -> Nodes:
    """Read the description of the nodes from JSON.

    Raises:
        UserError: a field is unknown or missing, or a value has the wrong type or is set by the runtime.
    """
    try:
        return msgspec.json.decode(text, type=Nodes)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{error}", where="nodes", fix="see the fields in elcrec/adapters/train_nodes.py") from error


def job(name: str, command: list[str], nodes: Nodes) -> dict[str, Any]:
    """Return the arguments of the SDK's `train`: the nodes' command, and patches to the runtime."""
    import_sdk()
    from kubeflow.trainer import CustomTrainerContainer  # noqa: PLC0415
    from kubeflow.trainer.options import (  # noqa: PLC0415
        ActiveDeadlineSeconds,
        Labels,
        Name,
        TrainerArgs,
        TrainerCommand,
    )

    trainer = CustomTrainerContainer(
        image=nodes.image,
        num_nodes=nodes.num_nodes,
        resources_per_node=nodes.resources or None,
        env=nodes.environment or None,
    )
    return {
        "runtime": nodes.runtime,
        "trainer": trainer,
        "options": [
            Name(name),
            Labels(LABELS | nodes.labels),
            TrainerCommand(command[:1]),  # set both, because a runtime may have its own arguments
            TrainerArgs(command[1:]),
            ActiveDeadlineSeconds(nodes.timeout_seconds),  # ends the job even if no process is left to delete it
            _patch(nodes),
        ],
    }


def _patch(nodes: Nodes) -> Any:
    """Return the patch to the runtime's pods: volumes, scheduling, and no privileges."""
    from kubeflow.trainer import options  # noqa: PLC0415

    volumes: list[dict[str, Any]] = [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": nodes.workspace_claim}}
    ]
    mounts = [{"name": "workspace", "mountPath": nodes.workspace}]
    if nodes.shared_memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": nodes.shared_memory}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - shared memory
    pod = options.PodSpecPatch(
        service_account_name=nodes.service_account,
        volumes=volumes,
        containers=[options.ContainerPatch(name="node", volume_mounts=mounts, security_context=PRIVILEGES)],
        security_context=POD_PRIVILEGES,
        node_selector=nodes.node_selector or None,
        tolerations=[set_fields(toleration) for toleration in nodes.tolerations] or None,
    )
    template = options.JobTemplatePatch(
        spec=options.JobSpecPatch(template=options.PodTemplatePatch(metadata={"labels": NO_SIDECAR}, spec=pod))
    )
    node = options.ReplicatedJobPatch(name="node", template=template)
    job_set = options.JobSetTemplatePatch(spec=options.JobSetSpecPatch(replicated_jobs=[node]))
    return options.RuntimePatch(training_runtime_spec=options.TrainingRuntimeSpecPatch(template=job_set))


def set_fields(section: Section) -> dict[str, Any]:
    """Return the fields of a section that have a value."""
    return {name: value for name, value in to_dict(section).items() if value is not None}


def import_sdk() -> None:
    """Import the SDK, which takes three seconds, without its warnings, such as that it cannot see Trainer's version."""
    with quiet("kubeflow"):
        import kubeflow.trainer  # noqa: F401, PLC0415
