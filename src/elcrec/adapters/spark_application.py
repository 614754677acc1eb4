"""A SparkApplication of the Spark operator for the duration of a stage: created, followed and deleted.

It is a Spark Connect server. The stage itself runs in this process and connects to it, so its inputs, outputs and
messages are the same as with Spark on this machine.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from elcrec.adapters import kubernetes_api
from elcrec.adapters.kubernetes_api import CONFLICT, NOT_FOUND, api_message, await_absence, http_status, patiently
from elcrec.adapters.pod_log import TAIL_LINES, PodLog, sigterm_as_exit
from elcrec.adapters.quiet import quiet
from elcrec.adapters.spark_cluster import GROUP, PLURAL, PORT, VERSION, SparkCluster, application
from elcrec.errors import LostWorkError, UserError

logger = logging.getLogger(__name__)

RUNNING, FAILED = "RUNNING", "FAILED"
_ENDED = {"COMPLETED", FAILED}
_CONTAINER = "spark-kubernetes-driver"


@contextmanager
def spark_connect(key: str, cluster: SparkCluster) -> Iterator[str]:
    """Yield the address of a Spark Connect server that runs until the end of the block.

    The application is deleted at the end, and when this process is stopped; if its driver failed, it stays for
    inspection.

    Args:
        key: determines the application's name: another attempt with the same key first removes the previous
            application.
        cluster: the resources that it runs on.

    Raises:
        UserError: it cannot be created, or is never submitted.
        LostWorkError: it does not start in time, or its driver ended before the block did.
    """
    name = f"elcrec-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    client = _Client.connect(name)
    log = PodLog(client.log, kubernetes_api.POLL_SECONDS)
    try:
        with sigterm_as_exit():
            _create(client, application(name, cluster))
            with log.following():
                address = _await_driver(client, cluster, log)
                logger.info("%s: %d executors of %s", client.where, cluster.executors, cluster.image)
                try:
                    yield address
                except Exception as error:
                    _raise_if_lost(client, log, error)
                    raise
                client.delete()
    except _DriverLostError as lost:
        raise LostWorkError(str(lost), where=client.where, fix=client.describe, details=lost.details) from lost
    except BaseException:
        client.delete()
        raise


@contextmanager
def on_shared_volume(given: Path, cluster: SparkCluster, key: str) -> Iterator[tuple[Path, Path]]:
    """Yield a copy of a folder that executors can read, and a folder for their output; both are removed at the end."""
    folder = Path(cluster.workspace, "spark", hashlib.sha256(key.encode()).hexdigest()[:16])
    copy = folder / given.name
    try:
        _copy(given, copy)
        yield copy, folder / "work"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(given: Path, copy: Path) -> None:
    """Copy a folder to the shared volume, in place of an earlier attempt's copy."""
    try:
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(given, copy)
    except OSError as error:
        # For files, `copytree` raises one error without `strerror`, with a list of (from, to, reason).
        reason = error.strerror or error.args[0][0][-1]
        fix = "mount claims.workspace, with room for some times the log"
        raise UserError(f"the input cannot be copied there ({reason})", where=copy.parent, fix=fix) from error


class _DriverLostError(Exception):
    """The driver ended on its own."""

    def __init__(self, what: str, details: str) -> None:
        super().__init__(what)
        self.details = details


class _Client:
    """One application in the Kubernetes API."""

    def __init__(self, objects: Any, core: Any, namespace: str, name: str) -> None:
        self._objects, self._core, self._namespace, self._name = objects, core, namespace, name
        self.where = f"SparkApplication {namespace}/{name}"
        self.describe = f"kubectl -n {namespace} describe sparkapplication {name}"

    @classmethod
    def connect(cls, name: str) -> "_Client":
        """Connect to this pod's cluster, or to the one that the kubeconfig names."""
        with quiet("kubernetes"):
            from kubernetes import client, config  # noqa: PLC0415
        try:
            config.load_incluster_config()
            file = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
            namespace = file.read_text(encoding="ascii").strip()
        except config.ConfigException:
            try:
                config.load_kube_config()
                namespace = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
            except config.ConfigException as error:
                fix = "run in a cluster, or set KUBECONFIG; or set spark.executors=0 in platform.yaml"
                raise UserError(f"no Kubernetes cluster for a SparkApplication ({error})", fix=fix) from error
        return cls(client.CustomObjectsApi(), client.CoreV1Api(), namespace, name)

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, PLURAL

    def create(self, body: dict[str, Any]) -> None:
        self._objects.create_namespaced_custom_object(*self._place, body)

    def get(self) -> dict[str, Any]:
        """Return its status; empty until the operator has seen it."""
        found: dict[str, Any] = self._objects.get_namespaced_custom_object(*self._place, self._name)
        return found.get("status") or {}

    def delete(self) -> None:
        """Delete it after its pods; it may be absent."""
        try:
            self._objects.delete_namespaced_custom_object(*self._place, self._name, propagation_policy="Foreground")
        except Exception as error:  # noqa: BLE001 - the original error must not be hidden
            if http_status(error) != NOT_FOUND:
                logger.warning("%s could not be deleted: %s", self.where, getattr(error, "reason", None) or error)

    def address(self, status: dict[str, Any]) -> str | None:
        """Return the driver's address, or `None` until its pod has one."""
        pod = status.get("driverInfo", {}).get("podName")
        found = self._core.read_namespaced_pod(pod, self._namespace).status.pod_ip if pod else None
        return f"sc://{found}:{PORT}" if found else None

    def log(self) -> Iterator[tuple[str, Iterable[str]]]:
        pod = self.get().get("driverInfo", {}).get("podName")
        if pod:
            options = {"container": _CONTAINER, "follow": True, "_preload_content": False}
            answer = self._core.read_namespaced_pod_log(pod, self._namespace, **options)
            yield pod, (line.decode(errors="replace").rstrip("\n") for line in answer)

    def events(self) -> list[str]:
        """Return the last events of it and its pods; they help, but reading them may be forbidden."""
        with suppress(Exception):
            found = self._core.list_namespaced_event(self._namespace).items
            own = [event for event in found if event.involved_object.name.startswith(self._name)]
            return [f"{each.involved_object.name}: {each.reason}: {each.message}" for each in own[-TAIL_LINES:]]
        return []


def _create(client: _Client, body: dict[str, Any]) -> None:
    """Create the application; an earlier attempt's application of the same name is removed first."""
    with _explained(client):
        try:
            client.create(body)
        except Exception as error:
            if http_status(error) != CONFLICT:
                raise
            logger.info("%s: removing the application of an earlier attempt", client.where)
            client.delete()
            await_absence(client.get, "the application", client.where)
            client.create(body)


def _await_driver(client: _Client, cluster: SparkCluster, log: PodLog) -> str:
    """Wait until the driver runs, and return the server's address.

    The operator retries a failed submission (`PENDING_RERUN`), and Kueue may suspend the application: neither means
    that it ended.
    """
    deadline, said = time.monotonic() + cluster.timeout_seconds, None
    while True:
        with _explained(client):
            status = patiently(client.get)
        state = _state(status)
        if state != said:
            said = state
            logger.info("%s: %s", client.where, state or "created")
        if state == RUNNING and (address := client.address(status)):
            return address
        if state in _ENDED:
            raise _never_ran(client, status, log)
        if time.monotonic() > deadline:
            what = f"its driver is not running after {cluster.timeout_seconds} s (state {state or 'new'}); deleted"
            details = _explain(client, status, log)
            raise LostWorkError(what, where=client.where, fix="check that the cluster has room for it", details=details)
        time.sleep(kubernetes_api.POLL_SECONDS)


def _never_ran(client: _Client, status: dict[str, Any], log: PodLog) -> UserError:
    """Return the error of an application that ended early: its own fault if never submitted, else a lost driver."""
    submitted = bool(status.get("driverInfo", {}).get("podName"))
    what = status.get("applicationState", {}).get("errorMessage") or "it ended before its driver ran"
    kind = LostWorkError if submitted else UserError
    return kind(what, where=client.where, fix=client.describe, details=_explain(client, status, log))


def _raise_if_lost(client: _Client, log: PodLog, error: Exception) -> None:
    """Raise an error if the stage failed because its driver ended: out of memory, evicted, or deleted.

    Raises:
        _DriverLostError: it ended, so that another attempt may succeed.
    """
    try:
        status = client.get()
    except Exception as unknown:  # noqa: BLE001 - the stage's own error is more important
        if http_status(unknown) != NOT_FOUND:
            return
        raise _DriverLostError("the application was deleted", "") from error
    if _state(status) == RUNNING:
        return
    message = status.get("applicationState", {}).get("errorMessage", "")
    what = f"its driver ended (state {_state(status)}{': ' if message else ''}{message})"
    raise _DriverLostError(what, _explain(client, status, log)) from error


def _state(status: dict[str, Any]) -> str:
    return str(status.get("applicationState", {}).get("state", ""))


def _explain(client: _Client, status: dict[str, Any], log: PodLog) -> str:
    """Return the state of every executor, the cluster's last events, and the end of the driver's log."""
    lines = [f"{name}: {state}" for name, state in (status.get("executorState") or {}).items()]
    return "\n".join([*lines, *client.events(), *(f"driver | {line}" for line in log.tail)])


@contextmanager
def _explained(client: _Client) -> Iterator[None]:
    """Turn errors of the Kubernetes API into an error of one line with advice."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    try:
        yield
    except ApiException as error:
        fixes = {
            403: "give this pod's service account the role for SparkApplications",
            404: "check that the Spark operator is installed, with its CRD v1beta2",
            422: "the Spark operator 2.1 or later is needed",
        }
        reason = api_message(error) or error.reason
        raise UserError(f"{reason}", where=client.where, fix=fixes.get(error.status)) from error
