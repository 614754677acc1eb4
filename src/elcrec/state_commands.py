"""`elcrec events` and `elcrec forget`: argument parsing only."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from elcrec.errors import UserError

if TYPE_CHECKING:
    from elcrec.config import Config

Options = argparse.Namespace

_OWN = {"export": {"out", "base"}, "replay": set[str](), "trim": {"before"}, "consume": set[str]()}
"""Options of each verb; without a verb, for a file of events, there are none."""


def add_events(sub: argparse.ArgumentParser) -> None:
    """Describe `elcrec events`."""
    columns = "CSV with the header user_id,item_id,timestamp[,event_id,answer_id], or JSON lines; - reads stdin"
    columns += ". Columns and times may be those of the log, by the section validate"
    verbs = "export: write the event log as Parquet; replay: push the log again; trim: remove events before a time; "
    verbs += "consume: take events from the broker at ELCREC_STREAM until told to stop"
    sub.add_argument("what", metavar="FILE|export|replay|trim|consume", help=f"{columns}. {verbs}")
    sub.add_argument("--out", type=Path, metavar="FILE", help="export: the Parquet file to write")
    sub.add_argument(
        "--base",
        type=Path,
        metavar="FILE",
        help="export: an earlier export, to which the log's new events are appended",
    )
    sub.add_argument("--before", metavar="TIME", help="trim: ISO 8601, UTC if it has no zone")


def events(options: Options, config: Callable[[Options], "Config"]) -> dict[str, int]:
    """Run `elcrec events`."""
    verb = options.what if options.what in _OWN else None
    for name in ("out", "base", "before"):
        if getattr(options, name) is not None and name not in _OWN.get(verb or "", set()):
            raise UserError(f"--{name} does not apply to `elcrec events {options.what}`", fix="leave it out")
    if verb is None:
        return _push(options, config(options))
    with_config = {"replay": _replay, "consume": _consume}
    if verb in with_config:
        return with_config[verb](options, config(options))
    return {"export": _export, "trim": _trim}[verb](options)


def _push(options: Options, config: "Config") -> dict[str, int]:
    from elcrec.adapters.store import open_store
    from elcrec.serving.event_file import EventColumns
    from elcrec.stages.events import push_events

    columns = EventColumns.of(config.validate.for_layout(config.fetch.file.layout))
    features, file = open_store(options.store).features, options.what
    push = partial(push_events, features=features, columns=columns, dislikes=config.sequences.kinds.dislikes)
    if file == "-":
        return push(sys.stdin, name="standard input")
    try:
        with Path(file).open(encoding="utf-8", newline="") as lines:
            return push(lines, name=file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=file) from error


def _export(options: Options) -> dict[str, int]:
    from elcrec.adapters.event_export import export_events
    from elcrec.adapters.store import open_store

    if options.out is None:
        raise UserError("no file to write", fix="name it with --out")
    return export_events(open_store(options.store).features.event_log, options.out, base=options.base)


def _replay(options: Options, config: "Config") -> dict[str, int]:
    from elcrec.adapters.store import open_store
    from elcrec.stages.events import replay_events

    return replay_events(open_store(options.store).features, config.sequences.kinds.dislikes)


def _consume(options: Options, config: "Config") -> dict[str, int]:
    from prometheus_client import start_http_server

    from elcrec.adapters.store import open_store
    from elcrec.adapters.stream import open_topic
    from elcrec.serving.stream_metrics import StreamMetrics
    from elcrec.serving.telemetry import log_as_json
    from elcrec.stages.stream import consume

    topic, metrics, stop = open_topic(config.stream, os.environ), StreamMetrics(), Event()
    log_as_json()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if config.stream.metrics_port is not None:
        start_http_server(config.stream.metrics_port, registry=metrics.registry)
    features, dislikes = open_store(options.store).features, config.sequences.kinds.dislikes
    return consume(config.stream, topic, features=features, metrics=metrics, stop=stop, dislikes=dislikes)


def _trim(options: Options) -> dict[str, int]:
    from elcrec.adapters.store import open_store

    try:
        before = datetime.fromisoformat(options.before or "")
    except ValueError as error:
        raise UserError(f"--before {options.before!r} is not a time", fix="write e.g. 2026-03-01T00:00:00Z") from error
    before = before if before.tzinfo else before.replace(tzinfo=UTC)
    return {"removed": open_store(options.store).features.event_log.trim(before)}


def add_forget(sub: argparse.ArgumentParser) -> None:
    """Describe `elcrec forget`."""
    sub.add_argument("user", metavar="USER", help="the user's raw id")
    sub.add_argument(
        "--workdir",
        dest="workdirs",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with outputs of stages, or with recommendations; may be repeated",
    )


def forget(options: Options, config: "Config") -> dict[str, int]:
    """Run `elcrec forget`."""
    from elcrec.adapters.store import open_store
    from elcrec.data.ids import normal_id
    from elcrec.data.user_keys import user_key
    from elcrec.stages.forget import forget as stage

    reading = config.validate.for_layout(config.fetch.file.layout)
    store, columns = open_store(options.store), (reading.user_column, "user_id")
    folder = config.serve.exposures.folder
    return stage(
        options.user,
        store.folder,
        options.workdirs,
        columns=columns,
        features=store.features,
        text=reading.csv,
        exposures=None if folder is None else Path(folder),
        user_key=user_key(normal_id(options.user), store.user_salt) if store.has_user_salt else None,
    )
