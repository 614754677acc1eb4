"""Spans of a distributed trace: where a request spends its time. An adapter may record them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

Span = Any
"""A span that has begun, in the form of its recorder; `None` if nothing is recorded."""

_NOTHING = nullcontext()


class Traces(Protocol):
    """Records spans. They hold routes, statuses, times and sizes, and no id of a user or an item."""

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> Span:
        """Begin the span of a request, as part of the trace that its headers name (W3C traceparent)."""

    def end(self, span: Span, status: int) -> None:
        """End the span of a request."""

    def part(self, name: str, spans: Sequence[Span]) -> AbstractContextManager[None]:
        """Time a step that the requests of one batch share, as a part of each request's span."""

    def close(self) -> None:
        """Send what is not sent yet."""


class NoTraces:
    """Records nothing."""

    def begin(self, _method: str, _route: str, _headers: Mapping[str, str]) -> Span:
        """See `Traces`."""
        return None

    def end(self, span: Span, status: int) -> None:
        """See `Traces`."""

    def part(self, _name: str, _spans: Sequence[Span]) -> AbstractContextManager[None]:
        """See `Traces`."""
        return _NOTHING

    def close(self) -> None:
        """See `Traces`."""


NO_TRACES = NoTraces()
