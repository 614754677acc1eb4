"""Passing faults: errors that may go away by themselves, such as a network or a restarting server."""

import http.client
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from typing import Any

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP: timeout, too early, too many requests, and errors of a server."""
_PASSING = frozenset(
    {
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "asyncssh.ConnectionLost",
        "botocore.ConnectionClosedError",
        "botocore.EndpointConnectionError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "dulwich.HangupException",
        "elcrec.StoreUnavailable",
        "redis.ConnectionError",
        "redis.TimeoutError",
        "requests.ChunkedEncodingError",
        "requests.ConnectionError",
        "requests.RetryError",
        "requests.Timeout",
        "urllib3.MaxRetryError",
        "urllib3.ProtocolError",
        "urllib3.TimeoutError",
    }
)
"""Errors of libraries, which a step may not have installed, as package and class."""
_LASTING = frozenset({"redis.AuthenticationError", "redis.AuthorizationError"})
"""Those of them that are not passing faults."""


def is_passing(error: BaseException) -> bool:
    """Return whether the cause of an error is a passing fault; the innermost cause decides."""
    verdicts = [verdict for cause in _causes(error) if (verdict := _verdict(cause)) is not None]
    return bool(verdicts) and verdicts[-1]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _verdict(error: BaseException) -> bool | None:
    """Return whether this error is a passing fault; `None` if it does not show that."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, ssl.SSLCertVerificationError) or names & _LASTING:
        return False
    broken = ConnectionError, TimeoutError, http.client.IncompleteRead, http.client.BadStatusLine
    return True if isinstance(error, broken) or names & _PASSING else None


def _status(error: Any) -> int | None:
    """Return the HTTP status of an error, in whichever form its library stores it."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    response = getattr(error, "response", None)  # an object for requests, a mapping for botocore
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", getattr(error, "status", None))  # the latter is Kubernetes'
    return status if isinstance(status, int) and status >= http.HTTPStatus.BAD_REQUEST else None
