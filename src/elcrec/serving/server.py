"""The server process: uvicorn around the routes."""

import asyncio
import gc
import logging
import signal
from collections.abc import Sequence

import torch
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from elcrec.config import ServeConfig
from elcrec.serving.app import App
from elcrec.serving.live import Live
from elcrec.serving.ports import FeatureStore, ModelRegistry
from elcrec.serving.telemetry import Telemetry, log_as_json

logger = logging.getLogger(__name__)


def serve(
    config: ServeConfig,
    name: str,
    *,
    registry: ModelRegistry,
    features: FeatureStore,
    demo_users: Sequence[str] = (),
) -> None:
    """Serve the champion of model `name` until SIGTERM or Ctrl-C; requests in flight are finished.

    Raises:
        UserError: there is no champion that can be served.
    """
    torch.set_num_threads(config.threads)
    telemetry = Telemetry()
    log_as_json()
    live = Live(name, registry, features, telemetry)
    app = App(config, live, features, telemetry, demo_users=demo_users)
    # What is loaded stays for good: the collector need not look through it during a request.
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(_settings(config, app))
    # uvicorn raises the signal again once it is done, which would end the process as if it had been killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    logger.info("stopped")


def _settings(config: ServeConfig, app: App) -> uvicorn.Config:
    class Patient(_Patient):
        seconds = config.client_timeout

    return uvicorn.Config(
        app.asgi,
        host=config.host,
        port=config.port,
        http=Patient,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=config.limits.connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.drain,
    )


class _Patient(HttpToolsProtocol):
    """uvicorn waits for ever for a request's headers; this waits `seconds`, then hangs up."""

    seconds: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.seconds, self._hang_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
