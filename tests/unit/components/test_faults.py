"""Passing faults, each raised as by its library."""

import http.client
import socket
import ssl
import urllib.error
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import botocore.exceptions
import pytest
import redis
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components._dvc import find_version
from components._faults import is_passing
from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.errors import UserError
from elcrec.serving.ports import StoreUnavailable

CLOSED = "http://127.0.0.1:1"


def http_error(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://x", status, "", Message(), None)


def client_error(status: int) -> botocore.exceptions.ClientError:
    answer = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")


def name_error(number: int) -> urllib.error.URLError:
    error = urllib.error.URLError("name")
    error.__cause__ = socket.gaierror(number, "name")
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StoreUnavailable("the online store does not answer"), True),
        (http_error(503), True),
        (http.client.IncompleteRead(b""), True),
        (http.client.InvalidURL(), False),
        (http_error(429), True),
        (http_error(404), False),
        (client_error(503), True),
        (client_error(403), False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (redis.ConnectionError(), True),
        (redis.AuthenticationError(), False),
        (name_error(socket.EAI_AGAIN), True),
        (name_error(socket.EAI_NONAME), False),
        (ssl.SSLCertVerificationError(), False),
        (UserError("a wrong input"), False),
        (PermissionError(), False),
        (KeyError("a bug"), False),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, Exception) else str(value),
)
def test_network_faults_are_passing_and_refusals_are_not(error: Exception, passes: bool) -> None:
    assert is_passing(error) == passes
    wrapped = UserError("in our words")
    wrapped.__cause__ = error
    assert is_passing(wrapped) == passes


def raised_while_handling(cause: Exception, *, hidden: bool) -> UserError:
    """An error without a `from`, as many libraries raise it, or with `from None`."""
    error = UserError("in our words")
    error.__context__, error.__suppress_context__ = cause, hidden
    return error


def test_what_is_raised_while_another_error_is_handled_has_its_cause_unless_that_is_hidden() -> None:
    assert is_passing(raised_while_handling(ConnectionResetError(), hidden=False))
    assert not is_passing(raised_while_handling(ConnectionResetError(), hidden=True))


def test_requests_without_an_answer_pass() -> None:
    with pytest.raises(requests.ConnectionError) as raised:
        requests.get(CLOSED, timeout=1)
    assert is_passing(raised.value)


@pytest.fixture
def answering() -> Callable[[int], str]:
    """Starts a server that answers everything with one status; returns its address."""

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *arguments: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    return start


@pytest.mark.parametrize(("status", "passes"), [(503, True), (403, False)])
def test_mlflow_server_faults_are_passing_and_refusals_are_not(
    status: int, passes: bool, answering: Callable[[int], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="MLflow: ") as raised:
        MlflowRegistry(tmp_path, tracking_uri=answering(status)).champion("elcrec")
    assert isinstance(raised.value.__cause__, MlflowException)
    assert is_passing(raised.value) == passes


def test_an_mlflow_server_that_does_not_answer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as raised:
        MlflowClient(CLOSED, CLOSED).get_registered_model("elcrec")
    assert is_passing(raised.value)


@pytest.mark.parametrize(("repository", "passes"), [(f"{CLOSED}/log.git", True), ("/nowhere/log", False)])
def test_a_git_server_that_does_not_answer_passes_and_a_repository_that_is_absent_does_not(
    repository: str, passes: bool
) -> None:
    with pytest.raises(UserError, match="DVC cannot get the file") as raised:
        find_version(repository, "main", "log.csv")
    assert is_passing(raised.value) == passes
