"""Waiting for objects of the Kubernetes API, and reading its refusals: for TrainJobs and SparkApplications."""

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from elcrec.errors import LostWorkError

T = TypeVar("T")

POLL_SECONDS = 5.0
GONE_SECONDS = 300.0
"""Seconds that an earlier object may take to disappear; its pods have 30 s to end."""
TOLERATED = 10
"""Number of failed requests in a row before we give up."""
FORBIDDEN, NOT_FOUND, CONFLICT = 403, 404, 409


def patiently(request: Callable[[], T]) -> T:
    """Return the answer to a request; repeat it if it fails, for an API server may restart."""
    for _ in range(TOLERATED - 1):
        try:
            return request()
        except Exception as error:
            if http_status(error) in {FORBIDDEN, NOT_FOUND}:
                raise
            time.sleep(POLL_SECONDS)
    return request()


def await_absence(get: Callable[[], object], what: str, where: str) -> None:
    """Wait until an object of an earlier attempt is gone.

    Raises:
        LostWorkError: it stays.
    """
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        try:
            get()
        except Exception as error:
            if http_status(error) == NOT_FOUND:
                return
            raise
        time.sleep(POLL_SECONDS)
    raise LostWorkError(f"{what} of an earlier attempt cannot be removed", where=where, fix="delete it with kubectl")


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of a refusal, or of the refusal behind an error of an SDK."""
    for each in (error, error.__cause__):
        status = getattr(each, "status", None)
        if isinstance(status, int):
            return status
    return None


def api_message(error: BaseException) -> str:
    """Return the message in the body of a refusal; empty if there is none."""
    try:
        return str(msgspec.json.decode(getattr(error, "body", None) or b"{}").get("message", ""))
    except (msgspec.DecodeError, AttributeError, TypeError):
        return ""
