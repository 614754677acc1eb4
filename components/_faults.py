"""Which errors pass by themselves: a network, a server that restarts. All others would come again."""

import http.client
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from typing import Any

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP: time-out, too early, too many requests, and a server that is ill."""
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
"""Errors of libraries that a step may not even have installed, as package and class."""
_LASTING = frozenset({"redis.AuthenticationError", "redis.AuthorizationError"})
"""Those among them that are no fault of a network."""


def is_passing(error: BaseException) -> bool:
    """Whether the cause of an error is a fault that may be gone in a minute; the innermost cause knows best."""
    verdicts = [verdict for cause in _causes(error) if (verdict := _verdict(cause)) is not None]
    return bool(verdicts) and verdicts[-1]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _verdict(error: BaseException) -> bool | None:
    """Say whether this one passes; `None` where it tells nothing."""
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
    """Return the status of the HTTP answer that an error is about, in the words of the library that raised it."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    response = getattr(error, "response", None)  # requests has an object here, botocore a mapping
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", getattr(error, "status", None))  # the latter is Kubernetes'
    return status if isinstance(status, int) and status >= http.HTTPStatus.BAD_REQUEST else None
