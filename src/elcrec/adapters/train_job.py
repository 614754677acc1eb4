"""A TrainJob of Kubeflow Trainer 2.2 or later: created, followed to its end, and cleaned up after."""

import logging
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from elcrec.adapters.quiet import quiet
from elcrec.config import Positive, Section, to_dict
from elcrec.errors import UserError

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
GONE_SECONDS = 300.0
"""How long an earlier job may take to go away; its pods have 30 s to end."""
TAIL_LINES = 60
"""Some 40 of them are torchrun's, after the error that counts."""
TOLERATED = 10
"""Failed requests in a row before we give up on the Kubernetes API."""
PRIVILEGES = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_PRIVILEGES = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
"""With PRIVILEGES what the pod security standard `restricted` asks for."""
LEADER = "node-0"
OWN_ERROR = "elcrec: error: "
COMPLETE, FAILED, PENDING = "Complete", "Failed", "Pending"


class Toleration(Section, frozen=True, kw_only=True):
    """A taint that the nodes may have, as Kubernetes writes it."""

    key: str
    """The taint's key."""
    operator: str = "Exists"
    """`Exists`, or `Equal` to `value`."""
    value: str | None = None
    """The taint's value."""
    effect: str | None = None
    """`NoSchedule`, `NoExecute`; `None` for all."""


class NodeSettings(Section, frozen=True, kw_only=True):
    """What a cluster's owner decides about the nodes, beside their number and their machines."""

    runtime: Annotated[str, Meta(min_length=1)] = "torch-distributed"
    """The training runtime."""
    service_account: str | None = "elcrec-trainer"
    """Kubernetes service account of the nodes, which need no permission; `None`: the namespace's `default`."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Environment variables of the nodes; `PET_*` belongs to the runtime."""
    processes_per_node: Positive | None = None
    """Processes on a node; `None`: one a GPU, without GPUs one a CPU."""

    def __post_init__(self) -> None:
        """Check what the schema cannot say."""
        for name in self.environment:
            if name.startswith("PET_"):
                raise ValueError(f"{name} is set by the runtime; leave it away")


class Nodes(NodeSettings, frozen=True, kw_only=True):
    """Where and on what the nodes run."""

    image: str
    """Our image; the nodes run `torchrun` in it."""
    workspace_claim: str
    """PersistentVolumeClaim that every node mounts; it must be ReadWriteMany where they are not on one machine."""
    workspace: str = "/workspace"
    """Where it is mounted, on the nodes and here."""
    num_nodes: Positive = 2
    """Number of nodes."""
    resources: dict[str, str] = msgspec.field(default_factory=dict)
    """Requests and limits of a node, such as `{"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}`."""
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels that the machines must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that they may have."""
    shared_memory: str | None = "2Gi"
    """Size of /dev/shm on a node, which NCCL needs; `None` leaves the 64 MiB of a container."""
    timeout_seconds: Positive = 86400
    """Longest time from the creation of the job to its end."""


def parse_nodes(text: str) -> Nodes:
    """Read the description of the nodes from JSON.

    Raises:
        UserError: a field is unknown or missing, or a value has the wrong type or is the runtime's to set.
    """
    try:
        return msgspec.json.decode(text, type=Nodes)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{error}", where="nodes", fix="its fields are in elcrec/adapters/train_job.py") from error


def job(name: str, command: list[str], nodes: Nodes) -> dict[str, Any]:
    """Return the arguments of the SDK's `train`: what the nodes run, and what is patched into the runtime."""
    _import_sdk()
    from kubeflow.trainer import CustomTrainerContainer  # noqa: PLC0415
    from kubeflow.trainer.options import ActiveDeadlineSeconds, Name, TrainerArgs, TrainerCommand  # noqa: PLC0415

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
            TrainerCommand(command[:1]),  # both, as a runtime may bring arguments of its own
            TrainerArgs(command[1:]),
            ActiveDeadlineSeconds(nodes.timeout_seconds),  # ends it even where nobody is left to delete it
            _patch(nodes),
        ],
    }


def _patch(nodes: Nodes) -> Any:
    """Return what the runtime's pods get besides: volumes, scheduling, and no privileges."""
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
        tolerations=[_set(toleration) for toleration in nodes.tolerations] or None,
    )
    template = options.JobTemplatePatch(spec=options.JobSpecPatch(template=options.PodTemplatePatch(spec=pod)))
    node = options.ReplicatedJobPatch(name="node", template=template)
    job_set = options.JobSetTemplatePatch(spec=options.JobSetSpecPatch(replicated_jobs=[node]))
    return options.RuntimePatch(training_runtime_spec=options.TrainingRuntimeSpecPatch(template=job_set))


def _set(section: Section) -> dict[str, Any]:
    return {name: value for name, value in to_dict(section).items() if value is not None}


def run_job(name: str, command: list[str], nodes: Nodes) -> None:
    """Create a TrainJob, copy its first node's log to ours, and wait for its end.

    It is deleted once it has succeeded, and when it is stopped or takes too long; a failed one stays to be looked at.

    Raises:
        UserError: the job cannot be created, fails or takes too long.
    """
    client = _connect()
    where = f"TrainJob {client.backend.namespace}/{name}"
    log = _Log(client, name)
    try:
        with sigterm_as_exit():
            _create(client, name, job(name, command, nodes), where)
            logger.info("%s: %d nodes of %s", where, nodes.num_nodes, nodes.image)
            with log.following():
                ended = _wait(client, name, nodes, where)
    except BaseException:
        _delete(client, name)
        raise
    if ended.status == FAILED:
        fix = f"kubectl -n {client.backend.namespace} describe trainjob {name}"
        raise UserError(log.error(), where=where, fix=fix, details=_explain(client, ended, log))
    _delete(client, name)


def _import_sdk() -> None:
    """Import the SDK, for three seconds and without its warnings, such as that it may not see Trainer's version."""
    with quiet("kubeflow"):
        import kubeflow.trainer  # noqa: F401, PLC0415


def _connect() -> Any:
    """Return a client of the namespace that this pod is in, or the kubeconfig names: the claim is of one namespace."""
    _import_sdk()
    from kubeflow.common.types import KubernetesBackendConfig  # noqa: PLC0415
    from kubeflow.trainer import TrainerClient  # noqa: PLC0415
    from kubernetes.config import ConfigException  # noqa: PLC0415

    try:
        return TrainerClient(KubernetesBackendConfig())
    except ConfigException as error:
        fix = "run in a cluster, or set KUBECONFIG; or train on one node"
        raise UserError(f"no Kubernetes to create a TrainJob in ({error})", fix=fix) from error


def _create(client: Any, name: str, request: dict[str, Any], where: str) -> None:
    """Create the job; one of that name is of an earlier attempt on the same checkpoint, and goes first."""
    with _explained(where):
        try:
            client.train(**request)
        except RuntimeError as error:
            if _http_status(error) != 409:  # noqa: PLR2004 - Conflict
                raise
            logger.info("%s: removing that of an earlier attempt", where)
            _delete(client, name)
            _await_absence(client, name, where)
            client.train(**request)


def _delete(client: Any, name: str) -> None:
    """Delete the job after its pods, so that its absence means theirs; a job that is absent is fine."""
    from kubeflow.trainer.constants.constants import GROUP, TRAINJOB_PLURAL, VERSION  # noqa: PLC0415
    from kubernetes.client import ApiException  # noqa: PLC0415

    place = (GROUP, VERSION, client.backend.namespace, TRAINJOB_PLURAL, name)
    try:
        client.backend.custom_api.delete_namespaced_custom_object(*place, propagation_policy="Foreground")
    except ApiException as error:
        if error.status != 404:  # noqa: PLR2004 - Not Found
            logger.warning("TrainJob %s could not be deleted: %s", name, error.reason)
    except Exception as error:  # noqa: BLE001 - what brought us here must not be hidden
        logger.warning("TrainJob %s could not be deleted: %s", name, error)


def _await_absence(client: Any, name: str, where: str) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        try:
            client.get_job(name)
        except RuntimeError as error:
            if _http_status(error) == 404:  # noqa: PLR2004 - Not Found
                return
            raise
        time.sleep(POLL_SECONDS)
    raise UserError("that of an earlier attempt does not go away", where=where, fix="delete it with kubectl")


def _wait(client: Any, name: str, nodes: Nodes, where: str) -> Any:
    """Return the job once it has ended."""
    deadline = time.monotonic() + nodes.timeout_seconds
    failures, status = 0, None
    while True:
        try:
            found = client.get_job(name)
            failures = 0
        except (RuntimeError, TimeoutError) as error:
            failures += 1
            if failures == TOLERATED or _http_status(error) in {403, 404}:
                with _explained(where):
                    raise
            time.sleep(POLL_SECONDS)
            continue
        if found.status != status:
            status = found.status
            logger.info("%s: %s", where, status)
        if status in {COMPLETE, FAILED}:
            return found
        if time.monotonic() > deadline:
            what = f"not finished after {nodes.timeout_seconds} s, and deleted"
            fix = "raise timeout_seconds; the next attempt goes on from the checkpoint"
            raise UserError(what, where=where, fix=fix, details=_explain(client, found, None))
        time.sleep(POLL_SECONDS)


def own_error(lines: Iterable[str]) -> str | None:
    """Return what `elcrec train` itself said was wrong in its log, if it did."""
    return next((line.removeprefix(OWN_ERROR) for line in lines if line.startswith(OWN_ERROR)), None)


class _Log:
    """The first node's log, copied to ours line by line; after a broken connection it goes on where it was."""

    def __init__(self, client: Any, name: str) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._client, self._name = client, name
        self._seen: Counter[str] = Counter()
        self._ended = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Copy in the background; at the end take what is left."""
        thread = threading.Thread(target=self._follow, name="trainjob-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
        thread.join(timeout=30)  # the pods have ended, so the log does
        while not thread.is_alive() and self._copy():
            pass

    def error(self) -> str:
        """Return what training itself said was wrong, if it did."""
        return own_error(self.tail) or "training failed"

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._copy()
            self._ended.wait(POLL_SECONDS)

    def _copy(self) -> bool:
        """Copy what is new until the log ends or breaks; return whether anything was."""
        before = self._seen.total()
        # Whatever breaks the log, a restart of the API server or a rotated file, is no reason to stop the training.
        with suppress(Exception):
            for step in self._client.get_job(self._name).steps:
                if step.name == LEADER and step.status != PENDING:
                    self._copy_pod(step.pod_name)
        return self._seen.total() > before

    def _copy_pod(self, pod: str) -> None:
        lines = self._client.get_job_logs(self._name, step=LEADER, follow=True)
        for line in islice(lines, self._seen[pod], None):
            self._seen[pod] += 1
            self.tail.append(line)
            logger.info("%s", line)


def _explain(client: Any, found: Any, log: _Log | None) -> str:
    """Return the state of every node, the cluster's last events, and the end of every log."""
    lines = [f"{step.name}: {step.status}" for step in found.steps]
    with suppress(Exception):  # events are a help, and may be forbidden
        events = client.get_job_events(found.name)[-TAIL_LINES:]
        lines += [f"{event.involved_object_name}: {event.reason}: {event.message}" for event in events]
    lines += [f"{LEADER} | {line}" for line in (log.tail if log else ())]
    for step in found.steps:
        if step.name != LEADER:
            with suppress(Exception):  # a pod that never started has no log
                tail = deque(client.get_job_logs(found.name, step=step.name), maxlen=TAIL_LINES)
                lines += [f"{step.name} | {line}" for line in tail]
    return "\n".join(lines)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what the SDK raises into one line that says what to do."""
    try:
        yield
    except (RuntimeError, TimeoutError, ValueError) as error:
        cause = error.__cause__ or error
        fixes = {
            403: "give this pod's service account the role for TrainJobs",
            404: "is Kubeflow Trainer 2.2 or later installed, and the runtime?",
            422: "Kubeflow Trainer 2.2 or later is needed",
        }
        reason = _api_message(cause) or str(cause)
        raise UserError(f"{error}: {reason}", where=where, fix=fixes.get(_http_status(error) or 0)) from error


def _http_status(error: BaseException) -> int | None:
    """Return the status of the Kubernetes API's answer that an error of the SDK comes from."""
    status = getattr(error.__cause__, "status", None)
    return status if isinstance(status, int) else None


def _api_message(cause: BaseException) -> str:
    try:
        return str(msgspec.json.decode(getattr(cause, "body", None) or b"{}").get("message", ""))
    except (msgspec.DecodeError, AttributeError, TypeError):
        return ""


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM, by which Kubernetes stops a pod, run our clean-up; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
