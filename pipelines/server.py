"""A Kubeflow Pipelines server: its address, the check of its version, and explanations of its errors.

Address and credentials come from the environment variables that kfp documents:

| variable | meaning |
|-|-|
| `KF_PIPELINES_ENDPOINT`, `KFP_ENDPOINT` | address of the server, such as `https://kubeflow.example/pipeline` |
| `KFP_NAMESPACE` | namespace of the runs, on a server with several users |
| `KFP_EXISTING_TOKEN` | bearer token |
| `KF_PIPELINES_SA_TOKEN_PATH` | file with a bearer token, read again for every request |
| `KF_PIPELINES_UI_ENDPOINT` | address of the UI in links, if it is not the server's |
"""

import http
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import kfp
import kfp_server_api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from elcrec.errors import UserError

OLDEST = (2, 16)
"""Oldest supported server: an older one accepts the package and fails in the middle of the run."""
SCHEDULED_ACCOUNTS = (2, 17)
"""First server that runs a schedule under the given service account; older ones ignore it."""
IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
"""Address of the server for pods of its cluster."""
TOKEN_PATH = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path
"""File of a pod's token for the server."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Address and credentials for a server."""

    host: str
    """Address of the server, with its scheme and without a trailing slash."""
    namespace: str | None = None
    """Namespace of the runs; `None` on a server with a single user."""
    token: str | None = None
    """Bearer token."""
    token_path: str | None = None
    """File with a bearer token, unless `token` is set."""
    ca_file: Path | None = None
    """Certificates for checking the server's, instead of the public ones."""
    ui: str | None = None
    """Address of the UI; `None`: `host`."""

    @classmethod
    def from_environment(
        cls, *, host: str | None = None, namespace: str | None = None, ca_file: Path | None = None
    ) -> Self:
        """Return a connection with missing fields taken from the environment.

        Raises:
            UserError: no address is given, or it is not an http or https address.
        """
        environ = os.environ
        in_pod = IN_CLUSTER if "KUBERNETES_SERVICE_HOST" in environ else None
        host = host or environ.get("KF_PIPELINES_ENDPOINT") or environ.get("KFP_ENDPOINT") or in_pod
        if not host:
            fix = "give --host or set KF_PIPELINES_ENDPOINT, such as https://kubeflow.example/pipeline"
            raise UserError("no address of a Kubeflow Pipelines server is set", fix=fix)
        path = environ.get("KF_PIPELINES_SA_TOKEN_PATH") or (TOKEN_PATH if Path(TOKEN_PATH).is_file() else None)
        return cls(
            host=_address(host),
            namespace=namespace or environ.get("KFP_NAMESPACE") or None,
            token=environ.get("KFP_EXISTING_TOKEN") or None,
            token_path=path,
            ca_file=ca_file,
            ui=environ.get("KF_PIPELINES_UI_ENDPOINT") or None,
        )

    def link(self, page: str) -> str:
        """Return the address of a page of the UI."""
        return f"{(self.ui or self.host).rstrip('/')}/#/{page}"


def _address(host: str) -> str:
    """Return the address of a server with its scheme and without a trailing slash."""
    address = (host if "://" in host else f"https://{host}").rstrip("/")
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = None
    if not parts or parts.scheme not in {"http", "https"} or not parts.hostname:
        fix = "give one such as https://kubeflow.example/pipeline"
        raise UserError("not the address of a Kubeflow Pipelines server", where=host, fix=fix)
    return address


class _Client(kfp.Client):  # type: ignore[misc] # kfp has no types
    """A client that checks the server once; kfp's own tries for 25 s and logs a traceback each time."""

    version: tuple[int, int] | None = None
    """Version of the server; `None` if it was built by hand, such as `master`."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:  # noqa: ARG002 - kfp's signature
        response = self._healthz_api.healthz_service_get_healthz(_preload_content=False, _request_timeout=30)
        try:
            health = json.loads(response.data)
            version = str(health.get("tag_name") or health.get("apiServerTagName") or "")
            users = bool(health["multi_user"] if "multi_user" in health else health["apiServerMultiUser"])
        except (ValueError, KeyError, AttributeError) as error:
            raise _NotKubeflowError(response.data[:200].decode(errors="replace")) from error
        self.version = _read_version(version)
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=users)


class _NotKubeflowError(Exception):
    """The address belongs to something else."""


class ServerAwayError(UserError):
    """The server cannot be reached at the moment."""


@contextmanager
def reached(connection: Connection) -> Iterator[Any]:
    """Yield a client for a server that answers, is new enough, and agrees with us on using a namespace."""
    for file in (connection.token_path, connection.ca_file):
        if file and not os.access(file, os.R_OK):
            raise UserError("not readable, but needed for the connection", where=file)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # errors that it retries are explained by us
    with warnings.catch_warnings(), explained(connection):
        warnings.simplefilter("ignore", FutureWarning)  # "only works with v2": we check the version ourselves
        client = _Client(
            host=connection.host,
            existing_token=connection.token,
            credentials=ServiceAccountTokenVolumeCredentials(connection.token_path) if connection.token_path else None,
            ssl_ca_cert=str(connection.ca_file) if connection.ca_file else None,
        )
        several = client.get_kfp_healthz().multi_user
        if connection.namespace and not several:
            fix = "leave out --namespace and KFP_NAMESPACE"
            raise UserError("this server has a single user and no namespaces", where=connection.host, fix=fix)
        if several and not (connection.namespace or client.get_user_namespace()):
            fix = "give --namespace or set KFP_NAMESPACE"
            raise UserError("this server has several users, each with a namespace", where=connection.host, fix=fix)
        yield client


def _read_version(text: str) -> tuple[int, int] | None:
    """Return a server's version, and refuse an old one; a server built by hand, such as `master`, has none."""
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    version = (int(numbers[1]), int(numbers[2])) if numbers else None
    if version and version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise UserError(
            f"the server runs Kubeflow Pipelines {text}; at least {wanted} is needed",
            fix=f"our packages use loops, exit tasks and mounts with which older servers fail; upgrade it to {wanted}",
        )
    return version


@contextmanager
def explained(connection: Connection) -> Iterator[None]:
    """Turn exceptions of the client library into an error of one line with advice."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise _explain(error, connection) from error
    except urllib3.exceptions.HTTPError as error:
        raise ServerAwayError(
            f"no answer ({_reason(error)})",
            where=connection.host,
            fix="check the address (http or https) and the network",
        ) from error
    except _NotKubeflowError as error:
        page = "a web page" if "<" in str(error) else f"{str(error)[:60]!r}"
        fix = "a login page means that the token is missing or has expired (KFP_EXISTING_TOKEN); else correct --host"
        raise UserError(f"{page} instead of Kubeflow Pipelines' API", where=connection.host, fix=fix) from error


def _explain(error: Any, connection: Connection) -> UserError:
    said, host = _message(error), connection.host
    if error.status == http.HTTPStatus.UNAUTHORIZED:
        missing = not (connection.token or connection.token_path)
        what = "no token was sent" if missing else "the token has expired or is for another server"
        return UserError(f"401: {what}", where=host, fix="set KFP_EXISTING_TOKEN or KF_PIPELINES_SA_TOKEN_PATH")
    if error.status == http.HTTPStatus.FORBIDDEN:
        where = f"namespace {connection.namespace}" if connection.namespace else "here"
        fix = "check that the namespace exists, and that the token's user has a role in it"
        return UserError(f"403: not allowed {where}: {said}", where=host, fix=fix)
    if error.status == http.HTTPStatus.NOT_FOUND and not said:
        fix = f"GET {host}/apis/v2beta1/healthz must answer; with the UI that is often under /pipeline"
        return UserError("404: no Kubeflow Pipelines 2 API at this address", where=host, fix=fix)
    if error.status and error.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return UserError(f"{error.status}: {said or error.reason}", where=host)
    reason = f"{error.status}: {said or error.reason}" if error.status else _reason(error.reason)
    return ServerAwayError(reason, where=host, fix="see its log, or try again later")


def _message(error: Any) -> str:
    """Return KFP's message of an error, without its call stack; empty if something else answered."""
    try:
        document = json.loads(error.body)
        text = document.get("message") or document.get("error") or ""
    except (TypeError, ValueError, AttributeError):
        return ""
    return str(text).strip().split("\n", maxsplit=1)[0]


def _reason(error: object) -> str:
    """Return the innermost part of a nested network error."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    return " ".join(str(error).rsplit("connection: ", maxsplit=1)[-1].split())
