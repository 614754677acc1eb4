"""The server process: uvicorn around the routes."""

import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
import uvicorn

from elcrec.config import ServeConfig
from elcrec.serving.app import App
from elcrec.serving.edge import connection_class
from elcrec.serving.exposures import ExposureLog
from elcrec.serving.items_file import ItemsFile
from elcrec.serving.live import Live
from elcrec.serving.ports import FeatureStore, ModelRegistry
from elcrec.serving.telemetry import Telemetry, log_as_json
from elcrec.serving.traces import NO_TRACES, Traces

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""Seconds that the event loop waits for the interpreter while another thread computes; Python's default, 5 ms per step,
adds up to seconds."""
_OTHER_FILES = 256
"""Number of files that the process may hold open besides its connections."""


def serve(
    config: ServeConfig,
    name: str,
    *,
    registry: ModelRegistry,
    features: FeatureStore,
    demo_users: Sequence[str] = (),
    api_keys: Sequence[str] = (),
    salt: str = "",
    check: Callable[[Path], None] | None = None,
    traces: Traces = NO_TRACES,
) -> None:
    """Serve the champion of model `name` until SIGTERM or Ctrl-C; requests in flight are finished.

    Args:
        config: the section `serve`.
        name: the registered model.
        registry: the registry of its versions.
        features: the online store.
        demo_users: users that the demo page offers.
        api_keys: clients must send one of these; if empty, no key is needed.
        salt: salt of the users' keys in exposures.
        check: raises UserError for a bundle folder that must not be trusted; `None` trusts all.
        traces: records where requests spend their time; closed at the end.

    Raises:
        UserError: there is no champion that can be served, the items file is invalid, or the folder of exposures cannot
            be written.
    """
    torch.set_num_threads(config.threads)
    sys.setswitchinterval(_SWITCH_SECONDS)
    telemetry = Telemetry()
    log_as_json()
    items = None if config.items_file is None else ItemsFile(Path(config.items_file))
    challenged = config.challenger.mode != "off"
    live = Live(name, registry, features, telemetry, items, check, challenged=challenged, alias=config.alias)
    folder, exposures = config.exposures.folder, None
    if config.exposures.wanted:
        place = None if folder is None else Path(folder)
        exposures = ExposureLog(config.exposures, place, salt=salt, telemetry=telemetry)
    app = App(
        config,
        live,
        features,
        telemetry,
        demo_users=demo_users,
        api_keys=api_keys,
        exposures=exposures,
        traces=traces,
    )
    # The loaded objects stay for good, so the garbage collector need not scan them during a request.
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(_settings(config, app))
    # uvicorn raises the signal again when it is done, which would end the process as if it had been killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    logger.info("stopped")


def _settings(config: ServeConfig, app: App) -> uvicorn.Config:
    limits = msgspec.structs.replace(config.limits, connections=_affordable(config.limits.connections))
    return uvicorn.Config(
        app.asgi,
        host=config.host,
        port=config.port,
        http=connection_class(limits, config.client_timeout),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.drain,
    )


def _affordable(connections: int) -> int:
    """Ask the system for room for `connections` connections; return how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("the system allows %d open files: fewer connections than serve.limits.connections", allowed)
    return max(1, allowed - _OTHER_FILES)
