"""A Kubernetes API with Kubeflow Trainer behind it: its REST paths over real HTTP, its pods processes of this machine.

A TrainJob must be what the SDK's models know, field by field. Its pods run the very command, with the `PET_*` variables
that Trainer's torch plugin sets; their output is the pods' log, their exit status the job's.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import yaml
from kubeflow_trainer_api import models

GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
CREATED = "2026-11-23T10:00:00Z"
RUNTIME = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                            "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "pytorch"}]}}},
                        },
                    }
                ]
            }
        },
    },
}


@dataclass
class Job:
    """A TrainJob and its pods."""

    body: dict[str, Any]
    pods: dict[str, subprocess.Popen[bytes]]
    logs: Path
    deleted_at: int | None = None
    """How many requests after its deletion it is still to be seen."""

    @property
    def phases(self) -> dict[str, str]:
        codes = {name: pod.poll() for name, pod in self.pods.items()}
        return {name: {None: "Running", 0: "Succeeded"}.get(code, "Failed") for name, code in codes.items()}

    @property
    def status(self) -> dict[str, Any]:
        phases = set(self.phases.values())
        kind = "Failed" if "Failed" in phases else "Complete" if phases == {"Succeeded"} else None
        conditions = [{"type": kind, "status": "True", "reason": kind, "message": kind, "lastTransitionTime": CREATED}]
        return {"conditions": conditions if kind and self.pods else []}

    def stop(self) -> None:
        for pod in self.pods.values():
            # torchrun starts its processes in new sessions; when a container ends, all of them end.
            for pid in (*descendants(pod.pid), pod.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pod.wait()


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, unseen = [], [pid]
    while unseen:
        parent = unseen.pop()
        children = [child for child, own in parents.items() if own == parent]
        found += children
        unseen += children
    return found


@dataclass
class Cluster:
    """The cluster's state, its received requests, and its faults."""

    folder: Path
    processes_per_node: int = 1
    jobs: dict[str, Job] = field(default_factory=dict)
    runtimes: dict[str, Any] = field(default_factory=lambda: {"torch-distributed": RUNTIME})
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    owners: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """`ownerReferences` by job."""
    pending: bool = False
    """Whether pods find no machine."""
    forbidden: tuple[str, str] | None = None
    """Method and end of a path that is answered with 403."""
    break_log_after: int | None = None
    """Lines after which a log's connection breaks, each time one more line later."""
    vanishing: bool = False
    """Whether somebody deletes a job as soon as it is there."""
    lingering: int = 0
    """Requests that a deleted job survives."""
    container: str = "node"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, dict[str, Any]]:
        if self.forbidden and method == self.forbidden[0] and path.endswith(self.forbidden[1]):
            return status(403, f"{self.forbidden[1]} is forbidden: User 'system:serviceaccount:team:elcrec' may not")
        routes = {
            f"GET {GROUP}/clustertrainingruntimes/(.+)": self.runtime,
            f"POST {GROUP}/namespaces/team/trainjobs": lambda: self.create(body),
            f"GET {GROUP}/namespaces/team/trainjobs/(.+)": self.get,
            f"PATCH {GROUP}/namespaces/team/trainjobs/(.+)": lambda name: self.patch(name, body),
            f"DELETE {GROUP}/namespaces/team/trainjobs/(.+)": lambda name: self.delete(name, query),
            "GET /api/v1/namespaces/team/pods": lambda: (200, listed("Pod", self.pods(query))),
            "GET /api/v1/namespaces/team/events": lambda: (200, listed("Event", self.events())),
        }
        for route, handler in routes.items():
            if match := re.fullmatch(route, f"{method} {path}"):
                return handler(*match.groups())
        return status(404, f"{method} {path} is not found")

    def runtime(self, name: str) -> tuple[int, dict[str, Any]]:
        return (200, self.runtimes[name]) if name in self.runtimes else status(404, f"runtime {name} not found")

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = models.TrainerV1alpha1TrainJob.from_dict(body).to_dict()
        if known != body:
            return status(422, f"{body} is not {known}")
        name = body["metadata"]["name"]
        if name in self.jobs:
            return status(409, f"trainjobs {name} already exists")
        self.created.append(body)
        logs = self.folder / f"{name}-{len(self.created)}"
        logs.mkdir()
        if not self.vanishing:
            self.jobs[name] = Job(body=body, pods={} if self.pending else self.start(body, logs), logs=logs)
        return 201, body

    def start(self, body: dict[str, Any], logs: Path) -> dict[str, subprocess.Popen[bytes]]:
        """Start a process a node, as the torch plugin would have it."""
        trainer, pods = body["spec"]["trainer"], {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        nodes = trainer["numNodes"]
        for rank in range(nodes):
            pet = {"NNODES": nodes, "NPROC_PER_NODE": self.processes_per_node, "NODE_RANK": rank}
            pet |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            own = {variable["name"]: variable["value"] for variable in trainer.get("env", [])}
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
            environment |= {f"PET_{key}": str(value) for key, value in pet.items()} | own
            environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
            name = f"{body['metadata']['name']}-node-0-{rank}-{len(self.created)}"
            with (logs / name).open("wb") as log:
                pods[name] = subprocess.Popen(
                    [*trainer["command"], *trainer["args"]],
                    env=environment,
                    cwd=logs,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        return pods

    def get(self, name: str) -> tuple[int, dict[str, Any]]:
        job = self.jobs.get(name)
        if job is None:
            return status(404, f"trainjobs {name} not found")
        if job.deleted_at is not None:
            job.deleted_at -= 1
            if job.deleted_at < 0:
                del self.jobs[name]
                return status(404, f"trainjobs {name} not found")
        return 200, job.body | {
            "metadata": job.body["metadata"] | {"namespace": "team", "creationTimestamp": CREATED},
            "status": job.status,
        }

    def patch(self, name: str, body: Any) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return status(404, f"trainjobs {name} not found")
        self.owners[name] = body["metadata"].pop("ownerReferences")
        assert body == {"metadata": {}}
        assert [models.IoK8sApimachineryPkgApisMetaV1OwnerReference.from_dict(one) for one in self.owners[name]]
        return 200, self.jobs[name].body

    def delete(self, name: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return status(404, f"trainjobs {name} not found")
        assert query["propagationPolicy"] == "Foreground"
        self.deleted.append(name)
        self.jobs[name].stop()
        if self.lingering:
            self.jobs[name].deleted_at = self.lingering
        else:
            del self.jobs[name]
        return 200, {"kind": "Status", "status": "Success"}

    def pods(self, query: dict[str, str]) -> list[dict[str, Any]]:
        match = re.match(r"jobset.sigs.k8s.io/jobset-name=([^,]+),", query["labelSelector"])
        assert match
        job = self.jobs[match[1]]
        phases = job.phases or {f"{match[1]}-node-0-0": "Pending"}
        return [
            {
                "metadata": {
                    "name": name,
                    "creationTimestamp": CREATED,
                    "labels": {
                        "jobset.sigs.k8s.io/jobset-name": match[1],
                        "jobset.sigs.k8s.io/replicatedjob-name": "node",
                        "batch.kubernetes.io/job-completion-index": str(rank),
                    },
                },
                "spec": {"containers": [{"name": "node", "image": "elcrec"}]},
                "status": {"phase": phase},
            }
            for rank, (name, phase) in enumerate(phases.items())
        ]

    def events(self) -> list[dict[str, Any]]:
        return [not_scheduled(f"{name}-node-0-0", "nvidia.com/gpu") for name, job in self.jobs.items() if not job.pods]

    def log(self, pod: str, *, follow: bool) -> Iterator[bytes]:
        """Yield a pod's lines, to its end if they are followed."""
        (job,) = (job for job in self.jobs.values() if pod in job.pods)
        limit = self.break_log_after
        if limit is not None:
            self.break_log_after = limit + 1
        with (job.logs / pod).open("rb") as file:
            sent = 0
            while True:
                ended = job.pods[pod].poll() is not None
                for line in file:
                    yield line
                    sent += 1
                    if sent == limit:
                        return
                if ended or not follow:
                    return
                time.sleep(0.01)


def not_scheduled(pod: str, what: str) -> dict[str, Any]:
    """Return the event of a pod that no node has room for."""
    return {
        "metadata": {"name": "e", "namespace": "team"},
        "involvedObject": {"kind": "Pod", "name": pod},
        "reason": "FailedScheduling",
        "message": f"0/3 nodes are available: insufficient {what}",
        "firstTimestamp": CREATED,
    }


def listed(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items}


def status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class Api(Protocol):
    """The API of the cluster."""

    container: str
    """Of the pods whose log is asked for."""

    @property
    def kubeconfig(self) -> Path: ...

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, dict[str, Any]]: ...

    def log(self, pod: str, *, follow: bool) -> Iterator[bytes]: ...


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster that listens on this machine and whose kubeconfig lies in `folder`."""
    cluster = Cluster(folder=folder)
    with serving(cluster):
        yield cluster
        for job in cluster.jobs.values():
            job.stop()
    shutil.rmtree(folder)


@contextmanager
def serving(cluster: Api) -> Iterator[None]:
    """Answer for a cluster over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            url, length = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            body = json.loads(self.rfile.read(length)) if length else None
            if match := re.fullmatch("/api/v1/namespaces/team/pods/(.+)/log", url.path):
                assert query["container"] == cluster.container
                self.reply(200, "text/plain", cluster.log(match[1], follow=query.get("follow") == "True"))
                return
            code, document = cluster.answer(self.command, url.path, query, body)
            self.reply(code, "application/json", iter([json.dumps(document).encode()]))

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def reply(self, code: int, kind: str, chunks: Iterator[bytes]) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                for chunk in chunks:
                    self.wfile.write(chunk)
                    self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        names = {"cluster": "test", "user": "test", "namespace": "team"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}],
            "users": [{"name": "test", "user": {"token": "t"}}],
            "contexts": [{"name": "test", "context": names}],
        }
        cluster.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        yield
        http.shutdown()
        thread.join()
