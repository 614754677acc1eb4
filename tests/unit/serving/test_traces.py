"""Traces: a request with its parts, in the trace that the client began, and to a real collector where one is named."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from elcrec.adapters.tracing import OtelTraces, open_traces
from elcrec.serving.app import App
from elcrec.serving.live import Live
from elcrec.serving.telemetry import Telemetry
from elcrec.serving.traces import NO_TRACES, Traces
from tests.support.imports import imports_of
from tests.support.serving import NAME, ROOT, Installation
from tests.unit.serving.test_app import EVENT, PATIENT, Ask, asked

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = {"user_id": "user-1", "k": 3}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("traced"))


def traced(installation: Installation, traces: Traces, ask: Ask[Any]) -> None:
    telemetry = Telemetry()
    live = Live(NAME, installation.registry, installation.store, telemetry)
    asked(App(PATIENT, live, installation.store, telemetry, traces=traces), ask)


def recorded(installation: Installation, ask: Ask[Any]) -> list[ReadableSpan]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced(installation, OtelTraces(provider), ask)
    return list(exporter.get_finished_spans())


def test_an_answer_is_part_of_the_clients_trace_and_has_store_and_ranking_within(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/recommend", json=REQUEST, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})

    spans = {span.name: span for span in recorded(installation, ask)}
    request = spans["POST /recommend"]

    assert set(spans) == {"POST /recommend", "store.read", "rank"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    for part in (spans["store.read"], spans["rank"]):
        assert part.parent is not None
        assert part.parent.span_id == request.context.span_id
        assert part.start_time is not None
        assert part.end_time is not None
        assert request.start_time is not None
        assert request.start_time <= part.start_time <= part.end_time
    assert spans["store.read"].end_time <= spans["rank"].start_time  # type: ignore[operator]


def test_events_are_traced_and_polled_routes_are_not(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/events", json=EVENT)
        await client.get("/metrics")
        await client.get("/v2/health/ready")

    assert {span.name for span in recorded(installation, ask)} == {"POST /events", "store.write"}


def test_spans_hold_no_id_of_a_user_or_an_item(installation: Installation) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/recommend", json=REQUEST)
        await client.get("/items/item-1/similar")
        await client.post("/events", json=EVENT)

    for span in recorded(installation, ask):
        assert "user-1" not in span.to_json()
        assert "item-1" not in span.to_json()


class Collector(HTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.server.spans += [(names["service.name"], s) for each in resource.scope_spans for s in each.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_variable_sends_traces_to_a_collector(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/recommend", json=REQUEST)

    with collector() as there:
        address = f"http://127.0.0.1:{there.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        traces = open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": address})
        traced(installation, traces, ask)
        traces.close()

        assert {(name, span.name) for name, span in there.spans} == {
            ("elcrec", name) for name in ("POST /recommend", "store.read", "rank")
        }


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}],
)
def test_without_it_nothing_is_recorded(environment: dict[str, str]) -> None:
    assert open_traces(environment) is NO_TRACES


def test_nothing_of_opentelemetry_is_imported_unless_traces_are_on() -> None:
    source = (ROOT / "src" / "elcrec" / "adapters" / "tracing.py").read_text(encoding="utf-8")
    heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]

    assert any("opentelemetry" in module for module, _ in imports_of(ROOT / "src/elcrec/adapters/tracing.py"))
    assert not [line for line in heads if "opentelemetry" in line]
