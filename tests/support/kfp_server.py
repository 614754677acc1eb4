"""The part of Kubeflow Pipelines' REST API v2beta1 that we use, over real HTTP.

A request is refused unless its path, method and body are those of kfp's own generated client: the paths are read from
the source of `kfp_server_api`, and a body must survive the way through its models unchanged.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api

APIS = Path(kfp_server_api.__file__).parent / "api"
ROUTE = re.compile(r"'(/apis/v2beta1[^']*)', '([A-Z]+)'")
ROUTES = {match.groups() for path in APIS.glob("*.py") for match in ROUTE.finditer(path.read_text(encoding="utf-8"))}
MODELS = {"experiments": "V2beta1Experiment", "runs": "V2beta1Run", "recurringruns": "V2beta1RecurringRun"}
Answer = tuple[int, str, str]


@dataclass
class Server:
    """The server's state, its received requests, and its faults."""

    host: str = ""
    health: dict[str, Any] = field(default_factory=lambda: {"tag_name": "2.16.0", "multi_user": False})
    token: str | None = None
    experiments: list[dict[str, Any]] = field(
        default_factory=lambda: [{"experiment_id": "e1", "display_name": "Default"}]
    )
    recurring: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, list[Any]] = field(default_factory=dict)
    """Answers to one GET after another by run: a run as JSON, or an `Answer`; the last one stays."""
    broken: Answer | None = None
    """Answer to everything."""
    requests: list[SimpleNamespace] = field(default_factory=list)

    def sent(self, method: str, resource: str) -> list[dict[str, Any]]:
        """Bodies of the requests to a resource."""
        return [r.body for r in self.requests if (r.method, r.path) == (method, f"/apis/v2beta1/{resource}")]

    def answer(self, request: SimpleNamespace) -> Answer:
        if self.broken:
            return self.broken
        if self.token and request.token != f"Bearer {self.token}":
            return error(401, "Request header error: there is no valid user identity")
        templates = (
            re.sub(r"\\\{.*?\\\}", "[^/:]+", re.escape(path)) for path, verb in ROUTES if verb == request.method
        )
        assert any(re.fullmatch(template, request.path) for template in templates), f"{request.path} is not in the API"
        _, _, resource, *rest = request.path.strip("/").split("/")
        if request.method == "POST":
            check(request.body, MODELS[resource])
        return getattr(self, f"{request.method.lower()}_{resource}")(request, *rest)

    def get_healthz(self, _: SimpleNamespace) -> Answer:
        return ok(self.health)

    def get_experiments(self, request: SimpleNamespace) -> Answer:
        namespace = request.query.get("namespace")
        if namespace and not self.health["multi_user"]:
            return error(400, "Invalid input error: In single-user mode, ListExperiment cannot filter by namespace.")
        if namespace not in {None, "team"}:
            return error(403, f"PermissionDenied: User 'ann' is not authorized to list in {namespace}\nstack: 1")
        return ok({"experiments": [e for e in self.experiments if e["display_name"] == wanted(request)]})

    def post_experiments(self, request: SimpleNamespace) -> Answer:
        self.experiments.append({**request.body, "experiment_id": f"e{len(self.experiments) + 1}"})
        return ok(self.experiments[-1])

    def post_runs(self, request: SimpleNamespace) -> Answer:
        return ok({**request.body, "run_id": "r1", "state": "PENDING"})

    def get_runs(self, _: SimpleNamespace, run_id: str) -> Answer:
        if run_id not in self.runs:
            return error(404, f"ResourceNotFoundError: Run {run_id} not found")
        answers = self.runs[run_id]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return found if isinstance(found, tuple) else ok(found)

    def get_recurringruns(self, request: SimpleNamespace) -> Answer:
        found = [r for r in self.recurring if r["display_name"] == wanted(request)]
        assert request.query["experiment_id"]
        return ok({"recurringRuns": found})

    def post_recurringruns(self, request: SimpleNamespace) -> Answer:
        if request.body["max_concurrency"] not in range(1, 11):
            return error(400, "Invalid input error: The max concurrency must be at least 1 and at most 10.")
        self.recurring.append({**request.body, "recurring_run_id": f"s{len(self.recurring) + 1}"})
        return ok(self.recurring[-1])

    def delete_recurringruns(self, _: SimpleNamespace, run_id: str) -> Answer:
        self.recurring = [r for r in self.recurring if r["recurring_run_id"] != run_id]
        return ok({})


def ok(document: dict[str, Any]) -> Answer:
    return 200, "application/json", json.dumps(document)


def error(status: int, message: str) -> Answer:
    details = [{"@type": "type.googleapis.com/google.rpc.Status", "message": message}]
    return status, "application/json", json.dumps({"error": message, "code": 3, "message": message, "details": details})


def wanted(request: SimpleNamespace) -> str:
    """The display name that a filter asks for, in either spelling of protobuf's JSON."""
    (predicate,) = json.loads(request.query["filter"])["predicates"]
    value = predicate.pop("stringValue", None) or predicate.pop("string_value")
    assert predicate in ({"operation": op, "key": "display_name"} for op in ("EQUALS", 1))
    return str(value)


def check(body: dict[str, Any], model: str) -> None:
    """Refuse a body that kfp's models do not know."""
    client = kfp_server_api.ApiClient()
    again = client.sanitize_for_serialization(client.deserialize(SimpleNamespace(data=json.dumps(body)), model))
    assert untyped(again) == untyped(body), f"{model}: {again} is not {body}"


def untyped(value: Any) -> Any:
    """64-bit integers are text in the models."""
    if isinstance(value, dict):
        return {key: untyped(v) for key, v in value.items() if v is not None}
    return [untyped(v) for v in value] if isinstance(value, list) else str(value)


@contextmanager
def running() -> Iterator[Server]:
    """Yield a server that listens on this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            url, length = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
            request = SimpleNamespace(
                method=self.command,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                body=json.loads(self.rfile.read(length)) if length else None,
                token=self.headers.get("authorization"),
            )
            state.requests.append(request)
            try:
                status, kind, text = state.answer(request)
            except AssertionError as problem:
                status, kind, text = error(500, f"the test's server refuses: {problem}")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        state.host = f"http://127.0.0.1:{http.server_port}"
        yield state
        http.shutdown()
        thread.join()
