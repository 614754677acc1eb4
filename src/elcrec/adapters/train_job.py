"""A TrainJob of Kubeflow Trainer 2.2 or later: created, followed to its end, and deleted."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from elcrec.adapters import kubernetes_api
from elcrec.adapters.kubernetes_api import CONFLICT, NOT_FOUND, api_message, await_absence, http_status, patiently
from elcrec.adapters.pod_log import TAIL_LINES, PodLog, sigterm_as_exit
from elcrec.adapters.train_nodes import Nodes, import_sdk, job
from elcrec.errors import LostWorkError, UserError

logger = logging.getLogger(__name__)

LEADER = "node-0"
OWN_ERROR = "elcrec: error: "
COMPLETE, FAILED, PENDING = "Complete", "Failed", "Pending"


def run_job(name: str, command: list[str], nodes: Nodes) -> None:
    """Create a TrainJob, copy its first node's log to ours, and wait until it ends.

    It is deleted when it has succeeded, is stopped or takes too long; a failed job stays for inspection.

    Raises:
        UserError: the job cannot be created, fails or takes too long.
    """
    client = _connect()
    where = f"TrainJob {client.backend.namespace}/{name}"
    log = PodLog(lambda: _leader_log(client, name), kubernetes_api.POLL_SECONDS)
    try:
        with sigterm_as_exit():
            _create(client, name, job(name, command, nodes), where)
            _give_to_owner(client, name, nodes, where)
            logger.info("%s: %d nodes of %s", where, nodes.num_nodes, nodes.image)
            with log.following():
                ended = _wait(client, name, nodes, where)
    except BaseException:
        _delete(client, name)
        raise
    if ended.status == FAILED:
        fix = f"kubectl -n {client.backend.namespace} describe trainjob {name}"
        own = own_error(log.tail)
        kind, what = (UserError, own) if own else (LostWorkError, "training failed")
        raise kind(what, where=where, fix=fix, details=_explain(client, ended, log))
    _delete(client, name)


def _connect() -> Any:
    """Return a client for this pod's namespace, or the kubeconfig's: a claim belongs to one namespace."""
    import_sdk()
    from kubeflow.common.types import KubernetesBackendConfig  # noqa: PLC0415
    from kubeflow.trainer import TrainerClient  # noqa: PLC0415
    from kubernetes.config import ConfigException  # noqa: PLC0415

    try:
        return TrainerClient(KubernetesBackendConfig())
    except ConfigException as error:
        fix = "run in a cluster, or set KUBECONFIG; or train on one node"
        raise UserError(f"no Kubernetes cluster for a TrainJob ({error})", fix=fix) from error


def _create(client: Any, name: str, request: dict[str, Any], where: str) -> None:
    """Create the job; an earlier attempt's job of the same name, for the same checkpoint, is removed first."""
    with _explained(where):
        try:
            client.train(**request)
        except RuntimeError as error:
            if http_status(error) != CONFLICT:
                raise
            logger.info("%s: removing the job of an earlier attempt", where)
            _delete(client, name)
            await_absence(lambda: client.get_job(name), "the job", where)
            client.train(**request)


def _give_to_owner(client: Any, name: str, nodes: Nodes, where: str) -> None:
    """Let the job be deleted with its owner, for which the SDK has no option; without permission, the job stays."""
    if nodes.owner is None:
        return
    try:
        client.backend.custom_api.patch_namespaced_custom_object(
            *_place(client, name), {"metadata": {"ownerReferences": [nodes.owner.reference]}}
        )
    except Exception as error:  # noqa: BLE001 - training works without it
        logger.warning("%s: not deleted with its run: %s", where, getattr(error, "reason", None) or error)


def _place(client: Any, name: str) -> tuple[str, ...]:
    """Return the coordinates of the job in the Kubernetes API."""
    from kubeflow.trainer.constants.constants import GROUP, TRAINJOB_PLURAL, VERSION  # noqa: PLC0415

    return GROUP, VERSION, client.backend.namespace, TRAINJOB_PLURAL, name


def _delete(client: Any, name: str) -> None:
    """Delete the job after its pods, so that its absence implies theirs; it may be absent."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    try:
        client.backend.custom_api.delete_namespaced_custom_object(
            *_place(client, name), propagation_policy="Foreground"
        )
    except ApiException as error:
        if error.status != NOT_FOUND:
            logger.warning("TrainJob %s could not be deleted: %s", name, error.reason)
    except Exception as error:  # noqa: BLE001 - the original error must not be hidden
        logger.warning("TrainJob %s could not be deleted: %s", name, error)


def _wait(client: Any, name: str, nodes: Nodes, where: str) -> Any:
    """Wait until the job has ended, and return it."""
    deadline = time.monotonic() + nodes.timeout_seconds
    status = None
    while True:
        with _explained(where):
            found = patiently(lambda: client.get_job(name))
        if found.status != status:
            status = found.status
            logger.info("%s: %s", where, status)
        if status in {COMPLETE, FAILED}:
            return found
        if time.monotonic() > deadline:
            what = f"not finished after {nodes.timeout_seconds} s, and deleted"
            fix = "raise timeout_seconds; the next attempt resumes from the checkpoint"
            raise LostWorkError(what, where=where, fix=fix, details=_explain(client, found, None))
        time.sleep(kubernetes_api.POLL_SECONDS)


def own_error(lines: Iterable[str]) -> str | None:
    """Return the error that `elcrec train` itself wrote to its log, if any."""
    return next((line.removeprefix(OWN_ERROR) for line in lines if line.startswith(OWN_ERROR)), None)


def _leader_log(client: Any, name: str) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the first node's pod and its present log lines."""
    for step in client.get_job(name).steps:
        if step.name == LEADER and step.status != PENDING:
            yield step.pod_name, client.get_job_logs(name, step=LEADER, follow=True)


def _explain(client: Any, found: Any, log: PodLog | None) -> str:
    """Return the state of every node, the cluster's last events, and the end of every log."""
    lines = [f"{step.name}: {step.status}" for step in found.steps]
    with suppress(Exception):  # events help, but reading them may be forbidden
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
    """Turn exceptions of the SDK into an error of one line with advice."""
    try:
        yield
    except (RuntimeError, TimeoutError, ValueError) as error:
        cause = error.__cause__ or error
        fixes = {
            403: "give this pod's service account the role for TrainJobs",
            404: "check that Kubeflow Trainer 2.2 or later and the runtime are installed",
            422: "Kubeflow Trainer 2.2 or later is needed",
        }
        reason = api_message(cause) or str(cause)
        raise UserError(f"{error}: {reason}", where=where, fix=fixes.get(http_status(error) or 0)) from error
