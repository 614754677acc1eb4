"""An in-memory server with the part of the Kubeflow Model Registry's REST API (v1) that we use.

Bodies are checked by the client's own models of the OpenAPI document, and two things of one name are refused.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

from mr_openapi import Artifact, ModelVersionCreate, RegisteredModelCreate

ROOT = "/api/model_registry/v1/"


class ModelRegistryServer:
    """Models, versions and artifacts, and faults of the server."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        """Ends of paths that get a 503."""
        self.tokens: set[str | None] = set()
        self.address = ""
        self._ids = count(1)

    def find(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Answer a GET."""
        kinds = {
            "registered_model": (self.models, ""),
            "model_version": (self.versions, "registeredModelId"),
            "model_artifact": (self.artifacts, "parent"),
        }
        found, parent = kinds[path]
        for each in found:
            if each["name"] == query["name"] and (not parent or each[parent] == query["parentResourceId"]):
                return 200, {key: value for key, value in each.items() if key != "parent"}
        return 404, {"code": "", "message": "not found"}

    def make(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer a POST."""
        if path == "registered_models":
            assert RegisteredModelCreate.from_dict(body)
            return self._add(self.models, body, "name")
        if path == "model_versions":
            assert ModelVersionCreate.from_dict(body)
            return self._add(self.versions, body, "name", "registeredModelId")
        version = path.removeprefix("model_versions/").removesuffix("/artifacts")
        assert any(each["id"] == version for each in self.versions)
        assert Artifact.from_dict(body)
        status, made = self._add(self.artifacts, {**body, "parent": version}, "name", "parent")
        return status, {key: value for key, value in made.items() if key != "parent"}

    def _add(self, to: list[dict[str, Any]], body: dict[str, Any], *unique: str) -> tuple[int, Any]:
        if any(all(each[key] == body[key] for key in unique) for each in to):
            return 409, {"code": "", "message": "already exists"}
        to.append({**body, "id": str(next(self._ids)), "state": body.get("state") or "LIVE"})
        return 201, to[-1]


@contextmanager
def model_registry_server() -> Iterator[ModelRegistryServer]:
    """Run the server on this machine."""
    state = ModelRegistryServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {key: value[0] for key, value in parse_qs(urlparse(self.path).query).items()}
            self._answer(lambda path: state.find(path, query))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(lambda path: state.make(path, body))

        def _answer(self, ask: Any) -> None:
            path = urlparse(self.path).path.removeprefix(ROOT)
            state.tokens.add(self.headers.get("Authorization"))
            refused = any(path.endswith(end) for end in state.refused)
            status, document = (503, {"code": "", "message": "ill"}) if refused else ask(path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
