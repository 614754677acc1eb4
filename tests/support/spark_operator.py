"""A Kubernetes API with a Spark operator, which moves a SparkApplication from state to state.

What is created must satisfy the schema of the CRD; the states come one a request, the last of them stays.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.support.kubernetes_api import listed, not_scheduled, serving, status

SCHEMA = Path(__file__).parents[1] / "unit" / "adapters" / "schemas" / "SparkApplication.yaml"
APPLICATIONS = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/team/sparkapplications"
UNSUBMITTED = {"", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN", "SUSPENDED"}


@dataclass
class Operator:
    """The operator's state, its received requests, and the course of an application."""

    folder: Path
    states: list[str] = field(default_factory=lambda: ["", "SUBMITTED", "RUNNING"])
    """Those that an application goes through."""
    message: str = ""
    """Why it failed."""
    submitted: bool = True
    """Whether spark-submit ever made a driver."""
    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    forbidden: str | None = None
    """Method that is answered with 403."""
    container: str = "spark-kubernetes-driver"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, dict[str, Any]]:
        if method == self.forbidden:
            return status(403, "sparkapplications is forbidden: User 'system:serviceaccount:team:elcrec' may not")
        routes = {
            f"POST {APPLICATIONS}": lambda: self.create(body),
            f"GET {APPLICATIONS}/(.+)": self.get,
            f"DELETE {APPLICATIONS}/(.+)": lambda name: self.delete(name, query),
            "GET /api/v1/namespaces/team/pods/(.+)": self.pod,
            "GET /api/v1/namespaces/team/events": lambda: (200, listed("Event", self.events())),
        }
        for route, handler in routes.items():
            if match := re.fullmatch(route, f"{method} {path}"):
                return handler(*match.groups())
        return status(404, f"{method} {path} is not found")

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
        errors = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(body)]
        if errors:
            return status(422, "; ".join(errors))
        name = body["metadata"]["name"]
        if name in self.applications:
            return status(409, f"sparkapplications {name} already exists")
        self.created.append(body)
        self.applications[name] = body
        return 201, body

    def get(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.applications:
            return status(404, f"sparkapplications {name} not found")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if not state:
            return 200, self.applications[name]
        found: dict[str, Any] = {"applicationState": {"state": state}}
        if state in {"FAILED", "FAILING"}:
            found["applicationState"]["errorMessage"] = self.message
        if self.submitted and state not in UNSUBMITTED:
            found |= {"driverInfo": {"podName": f"{name}-driver"}, "executorState": {f"{name}-exec-1": "RUNNING"}}
        return 200, self.applications[name] | {"status": found}

    def delete(self, name: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if name not in self.applications:
            return status(404, f"sparkapplications {name} not found")
        assert query["propagationPolicy"] == "Foreground"
        self.deleted.append(name)
        del self.applications[name]
        return 200, {"kind": "Status", "status": "Success"}

    def pod(self, name: str) -> tuple[int, dict[str, Any]]:
        return 200, {"metadata": {"name": name}, "status": {"phase": "Running", "podIP": "127.0.0.1"}}

    def events(self) -> list[dict[str, Any]]:
        return [not_scheduled(f"{name}-exec-2", "memory") for name in self.applications]

    def log(self, pod: str, *, follow: bool) -> Iterator[bytes]:
        yield b"the server listens\n"
        yield b"a job has begun\n"


@contextmanager
def operating(folder: Path) -> Iterator[Operator]:
    """Yield an operator whose kubeconfig lies in `folder`."""
    operator = Operator(folder=folder)
    with serving(operator):
        yield operator
