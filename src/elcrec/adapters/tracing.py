"""Traces by OpenTelemetry, sent as OTLP over HTTP to the address in the environment."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elcrec.errors import UserError
from elcrec.serving.traces import NO_TRACES, Span, Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_DISABLED, _SERVICE = "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"
_FAULT = 500


def open_traces(environment: Mapping[str, str]) -> Traces:
    """Return the recorder of traces, which records nothing unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

    OpenTelemetry's other variables work as usual (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …).

    Raises:
        UserError: the extra `tracing` is not installed.
    """
    if environment.get(_DISABLED, "").lower() == "true" or not any(environment.get(name) for name in _ENDPOINTS):
        return NO_TRACES
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'elcrec[tracing]'") from error
    name = {} if environment.get(_SERVICE) else {"service.name": "elcrec"}
    provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelTraces(provider)


class OtelTraces:
    """A `Traces` over a provider of the SDK. Spans end here, and a thread of the SDK sends them."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Take the provider, which `close` shuts down."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider, self._api = provider, trace
        self._tracer = provider.get_tracer("elcrec")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, route: str, headers: Mapping[str, str]) -> Span:
        """See `Traces`."""
        return self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(headers),
            kind=self._api.SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )

    def end(self, span: Span, status: int) -> None:
        """See `Traces`."""
        span.set_attribute("http.response.status_code", status)
        if status >= _FAULT:
            span.set_status(self._api.StatusCode.ERROR)
        span.end()

    @contextmanager
    def part(self, name: str, spans: Sequence[Span]) -> Iterator[None]:
        """See `Traces`. The size of the batch is an attribute."""
        started = time.time_ns()
        try:
            yield
        finally:
            ended = time.time_ns()
            for span in spans:
                if span is not None and span.is_recording():
                    context = self._api.set_span_in_context(span)
                    size = {"elcrec.batch.size": len(spans)}
                    part = self._tracer.start_span(name, context=context, attributes=size, start_time=started)
                    part.end(ended)

    def close(self) -> None:
        """See `Traces`."""
        self._provider.shutdown()
