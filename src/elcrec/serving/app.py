"""The server's routes: plain JSON, KServe's Open Inference Protocol v2, events, metrics, pages."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files

import msgspec
from msgspec import UNSET
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from elcrec import __version__
from elcrec.config import ServeConfig
from elcrec.data.ids import normal_id
from elcrec.serving import binary, browsing, inference, messages
from elcrec.serving.access import Access, require_json
from elcrec.serving.batching import QueueFull
from elcrec.serving.engine import Answer, Engine, Question
from elcrec.serving.exposures import ExposureLog
from elcrec.serving.live import Live, Watcher
from elcrec.serving.loaded import Serving
from elcrec.serving.messages import ErrorResponse, Refusal
from elcrec.serving.openapi import document
from elcrec.serving.ports import FeatureStore, StoreUnavailable
from elcrec.serving.responses import response_of, scored_items
from elcrec.serving.telemetry import CONTENT_TYPE, Telemetry
from elcrec.serving.traces import NO_TRACES, Traces

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_JSON = "application/json"
_HELD = "elcrec.held_bytes"
"""Key of a request's state: how many bytes of its body are held."""
_SPAN = "elcrec.span"
"""Key of a request's state: its span."""
_UNTRACED = ("/v2/health/", "/metrics")
"""Prefixes of routes that are polled all the time and are not users' requests."""
_BUSY, _TOO_LARGE, _TIMEOUT = 503, 413, 408


class App:
    """The routes, bound to what serves."""

    def __init__(
        self,
        config: ServeConfig,
        live: Live,
        features: FeatureStore,
        telemetry: Telemetry,
        *,
        demo_users: Sequence[str] = (),
        api_keys: Sequence[str] = (),
        exposures: ExposureLog | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        """Take the parts.

        Args:
            config: the section `serve`.
            live: what serves.
            features: the online store.
            telemetry: the server's metrics.
            demo_users: users that the demo page offers.
            api_keys: clients must send one for all but health, metrics and pages; if empty, no key is needed.
            exposures: where answers are recorded; `None`: they are not.
            traces: records where requests spend their time.
        """
        self._exposures, self._traces = exposures, traces
        self._config, self._live, self._telemetry = config, live, telemetry
        self._engine = Engine(config, live, features, telemetry, traces)
        self._demo_users = list(demo_users)
        self._access = Access(listens_on=config.host, hosts=config.hosts, api_keys=api_keys)
        self._held_bytes = 0
        self._openapi = msgspec.json.encode(document(config.limits, demo=config.demo))
        model = "/v2/models/{name}"
        routes = [
            self._route("/recommend", self._guarded(self._recommend), "POST"),
            self._route("/events", self._guarded(self._events), "POST"),
            self._route("/items/{item_id:path}/similar", self._guarded(self._similar), "GET"),
            self._route("/intents", self._guarded(self._intents), "GET"),
            self._route("/intents/{index}/items", self._guarded(self._intent_items), "GET"),
            self._route("/v2", self._server, "GET"),
            self._route("/v2/health/live", self._is_live, "GET"),
            self._route("/v2/health/ready", self._is_ready, "GET"),
            self._route(model, self._model, "GET"),
            self._route(f"{model}/ready", self._model_ready, "GET"),
            self._route(f"{model}/infer", self._guarded(self._infer), "POST"),
            *(
                self._route(f"{model}/versions/{{version}}{rest}", handler, method)
                for rest, handler, method in (
                    ("", self._model, "GET"),
                    ("/ready", self._model_ready, "GET"),
                    ("/infer", self._guarded(self._infer), "POST"),
                )
            ),
            self._route("/metrics", self._metrics, "GET"),
            self._route("/openapi.json", self._schema, "GET"),
            self._route("/docs", _page("docs.html"), "GET"),
        ]
        if config.demo:
            routes += [
                self._route("/", _page("demo.html"), "GET"),
                self._route("/demo/users", self._guarded(self._users), "GET"),
            ]
        handlers = {HTTPException: _http_error, Exception: _our_fault}
        self.asgi = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        watcher = Watcher(self._live, self._config.poll)
        watcher.start()
        if self._exposures is not None:
            self._exposures.start()
        yield
        watcher.stop()
        self._engine.close()
        if self._exposures is not None:
            self._exposures.close()
        self._traces.close()

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        """Bind a handler: errors of the client become answers, and every answer is timed."""
        traces = NO_TRACES if path.startswith(_UNTRACED) else self._traces

        async def timed(request: Request) -> Response:
            started, status = time.perf_counter(), 500
            span = request.scope[_SPAN] = traces.begin(method, path, request.headers)
            try:
                response = await _refusals(handler, request)
                status = response.status_code
            finally:
                self._observe(path, status, time.perf_counter() - started)
                traces.end(span, status)
            return response

        return Route(path, timed, methods=[method])

    def _guarded(self, handler: Handler) -> Handler:
        """Let only permitted requests reach a handler, and release the room of the body when it is done."""

        async def guarded(request: Request) -> Response:
            self._access.require_key(request.headers)
            self._access.require_own_page(request.headers)
            try:
                return await handler(request)
            finally:
                self._held_bytes -= request.scope.get(_HELD, 0)

        return guarded

    def _observe(self, path: str, status: int, seconds: float) -> None:
        self._telemetry.latency.labels(path, status).observe(seconds)
        if self._config.log_requests:
            fields = {"route": path, "status": status, "seconds": round(seconds, 6)}
            logger.info("request", extra={"fields": fields})

    async def _recommend(self, request: Request) -> Response:
        asked = messages.read_recommend(await self._body(request), self._config.limits)
        question = Question(
            user_id=None if asked.user_id is UNSET else normal_id(str(asked.user_id)),
            history=None if asked.history is UNSET else _normal(asked.history),
            k=asked.k,
            allow=None if asked.filters.allow is UNSET else _normal(asked.filters.allow),
            deny=_normal(asked.filters.deny),
            categories=None if asked.filters.categories is UNSET else asked.filters.categories,
            deny_categories=asked.filters.deny_categories,
            explain=asked.explain,
        )
        answer = await self._ask(request, question)
        self._note([question], [answer])
        return _json(response_of(answer, with_history=asked.with_history))

    async def _similar(self, request: Request) -> Response:
        item_id, kind = normal_id(request.path_params["item_id"]), browsing.read_kind(request.query_params)
        k, serving = browsing.read_k(request.query_params, self._config.limits), self._live.current
        browsing.require_item(serving.recommender, item_id)
        if kind == "near":
            items = await asyncio.to_thread(browsing.near_items, serving.recommender, item_id, k)
        else:
            answer = await self._ask(request, Question(user_id=None, history=[item_id], k=k, deny=[item_id]))
            items, serving = scored_items(answer.recommendation, answer.serving.recommender), answer.serving
        model = browsing.model_answer(serving)
        return _json(messages.SimilarResponse(item_id=item_id, kind=kind, items=items, model=model))

    async def _intents(self, _: Request) -> Response:
        return _json(await asyncio.to_thread(browsing.intents_of, self._live.current))

    async def _intent_items(self, request: Request) -> Response:
        k = browsing.read_k(request.query_params, self._config.limits)
        index, serving = request.path_params["index"], self._live.current
        return _json(await asyncio.to_thread(browsing.items_of, serving, index, k))

    async def _infer(self, request: Request) -> Response:
        self._require_model(request)
        limits, headers = self._config.limits, request.headers
        encoding = headers.get("content-encoding", "").strip().lower()
        body = binary.decompress(await self._body(request), encoding, limits.body_bytes)
        head, data = binary.split(body, headers.get(binary.HEADER))
        asked = inference.parse_infer(head)
        binary.fill(asked.inputs, data)
        questions = inference.questions_of(asked, limits, version=request.path_params.get("version"))
        answers = await asyncio.gather(*(self._ask(request, question) for question in questions))
        self._note(questions, answers)
        content, size = binary.pack(inference.write_infer(asked, answers), inference.binary_outputs(asked))
        content, said = binary.compress(content, headers.get("accept-encoding", ""))
        if size is None:
            return Response(content, headers=said, media_type=_JSON)
        return Response(content, headers={**said, binary.HEADER: str(size)}, media_type="application/octet-stream")

    async def _ask(self, request: Request, question: Question) -> Answer:
        span = request.scope[_SPAN]
        try:
            return await self._engine.ask(question if span is None else replace(question, span=span))
        except QueueFull as error:
            message = "too many requests wait: try again, or run more servers"
            raise Refusal(_BUSY, message, headers={"retry-after": "1"}) from error

    def _note(self, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        """Record the answer that is about to be sent."""
        if self._exposures is not None:
            for question, answer in zip(questions, answers, strict=True):
                self._exposures.add(question, answer)

    async def _events(self, request: Request) -> Response:
        require_json(request.headers)
        events = messages.read_events(await self._body(request), self._config.limits)
        try:
            with self._traces.part("store.write", [request.scope[_SPAN]]):
                outcome = await self._engine.push(events)
        except QueueFull as error:
            message = "too many events wait for the store: try again"
            raise Refusal(_BUSY, message, headers={"retry-after": "1"}) from error
        except StoreUnavailable as error:
            raise Refusal(_BUSY, str(error), headers={"retry-after": "1"}) from error
        return _json(
            messages.EventsResponse(
                accepted=outcome.accepted,
                duplicates=outcome.duplicates,
                late=outcome.late,
                refused=outcome.refused,
                users=outcome.users,
            )
        )

    async def _body(self, request: Request) -> bytes:
        """Read a body within the limits of size and time.

        Raises:
            Refusal: it is too large (413) or too slow (408), or too many bodies are held already (503).
        """
        most = self._config.limits.body_bytes
        too_large = Refusal(_TOO_LARGE, f"the body has more than {most} bytes", headers={"connection": "close"})
        declared = request.headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.client_timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
                    self._hold(request, len(chunk))
        except TimeoutError as error:
            message = f"the body took more than {self._config.client_timeout:g} s to arrive"
            raise Refusal(_TIMEOUT, message, headers={"connection": "close"}) from error
        return bytes(body)

    def _hold(self, request: Request, size: int) -> None:
        self._held_bytes += size
        request.scope[_HELD] = request.scope.get(_HELD, 0) + size
        if self._held_bytes > self._config.limits.held_bytes:
            headers = {"retry-after": "1", "connection": "close"}
            raise Refusal(_BUSY, "too many bodies are being read: try again", headers=headers)

    async def _server(self, _: Request) -> Response:
        return _json({"name": "elcrec", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def _is_live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _is_ready(self, _: Request) -> Response:
        # It listens from when a bundle is loaded and warm until it is told to stop.
        problems = [problem for problem in dict.fromkeys(self._problems().values()) if problem]
        ready = not problems or self._config.ready_with_problems
        return _json({"ready": ready, "problems": problems}, status=200 if ready else _BUSY)

    def _problems(self) -> dict[str, str | None]:
        """Return the problems by the part that has them."""
        return {
            "champion": self._live.problem,
            "items": self._live.items_problem,
            "store": self._engine.problem,
            "exposures": None if self._exposures is None else self._exposures.problem,
            "challenger": None if self._live.challenger is None else self._live.challenger.problem,
        }

    async def _model(self, request: Request) -> Response:
        serving = self._require_model(request)
        described = {"name": serving.name, "versions": [serving.version], "platform": "elcrec"}
        return _json({**described, "inputs": inference.INPUTS, "outputs": inference.OUTPUTS})

    async def _model_ready(self, request: Request) -> Response:
        return _json({"name": self._require_model(request).name, "ready": True})

    def _require_model(self, request: Request) -> Serving:
        serving, name = self._live.current, request.path_params["name"]
        if name != serving.name:
            raise Refusal(404, f"no model of that name: this server has {serving.name!r}")
        if request.path_params.get("version", serving.version) != serving.version:
            raise Refusal(404, f"no such version: this server has {serving.version}")
        return serving

    async def _metrics(self, _: Request) -> Response:
        self._telemetry.show_problems(self._problems())
        return Response(self._telemetry.page(), media_type=CONTENT_TYPE)

    async def _schema(self, _: Request) -> Response:
        return Response(self._openapi, media_type=_JSON)

    async def _users(self, _: Request) -> Response:
        return _json({"users": self._demo_users})


def _normal(item_ids: Sequence[messages.Id]) -> list[str]:
    return [normal_id(str(item_id)) for item_id in item_ids]


async def _refusals(handler: Handler, request: Request) -> Response:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(refusal.status, refusal.message, refusal.headers)
    except ClientDisconnect:
        return _error(_TIMEOUT, "the client went away")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, dict(error.headers or {}))


async def _our_fault(_: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return _error(500, "the server failed; its log says where")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return _json(ErrorResponse(error=message), status=status, headers=headers)


def _json(content: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, _JSON)


def _page(name: str) -> Handler:
    """Return a handler for one of our pages, which may load nothing from elsewhere."""
    content = files("elcrec.serving").joinpath("static", name).read_bytes()
    policy = "default-src 'self' 'unsafe-inline'; img-src 'self' data:"

    async def page(_: Request) -> Response:
        return Response(content, media_type="text/html", headers={"content-security-policy": policy})

    return page
