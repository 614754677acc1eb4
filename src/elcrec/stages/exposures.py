"""Exposures: join the servers' exposures with the events that followed, into one table."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, write_json
from elcrec.config import ExposuresConfig, to_dict
from elcrec.data.engine import Engine
from elcrec.errors import UserError
from elcrec.monitoring.attributed import ATTRIBUTED_FILE, EXPOSURES_FILE
from elcrec.monitoring.attribution import ATTRIBUTED_SCHEMA, attribute, attributed, counts, write_events
from elcrec.monitoring.online import online_metrics
from elcrec.pages.online import write_online_page
from elcrec.pages.render import can_write_pages
from elcrec.serving.exposure_files import EXPOSURE_SCHEMA, LATER_COLUMNS, seal_abandoned
from elcrec.serving.ports import LOG_SCHEMA, EventLog

_MICROSECOND = timedelta(microseconds=1)
_NEEDED = ("user_id", "item_id", "timestamp")


def join_exposures(
    config: ExposuresConfig,
    folder: Path,
    out: Path,
    *,
    salt: str,
    engine: Engine,
    log: EventLog | None = None,
    export: Path | None = None,
    dislikes: Sequence[str] = (),
) -> dict[str, int]:
    """Attribute events to exposures and write the results; return the counts.

    `attributed.parquet` has one row per shown item, `online.csv` the metrics of each group, `exposures.json` the
    counts, and `online.html` is a page. The same inputs give the same bytes (except the page's time of writing); later
    events are included by the next run.

    Args:
        config: the section `exposures`.
        folder: the exposures of servers (`serve.exposures.folder`).
        out: the folder to write.
        salt: salt of the users' keys.
        engine: runs the SQL.
        log: the event log of the store.
        export: a file of `elcrec events export`, for events that the log no longer has.
        dislikes: kinds of events that express dislike (`sequences.kinds.dislikes`); they follow from no answer.

    Raises:
        UserError: there are no exposures, or a file is invalid.
        StoreUnavailable: the event log does not answer.
    """
    seal_abandoned(folder)
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError("no exposures", where=folder, fix="start the server with serve.exposures.folder")
    for path in files:
        _require(path, [name for name in EXPOSURE_SCHEMA.names if name not in LATER_COLUMNS])
    with atomic_dir(out) as scratch, engine.session(out) as session:
        found = session.folder / "events.parquet"
        write_events(_events(log, export), found)
        window = timedelta(seconds=config.window) // _MICROSECOND
        attribute(session, files, [found], salt=salt, window=window, dislikes=dislikes)
        with pq.ParquetWriter(scratch / ATTRIBUTED_FILE, ATTRIBUTED_SCHEMA, compression="zstd") as writer:
            for batch in attributed(session):
                writer.write_batch(batch)
        numbers, online = counts(session), online_metrics(session)
        with (scratch / "online.csv").open("wb") as file:
            csv.write_csv(online, file)
        if config.page and online.num_rows and can_write_pages():
            write_online_page(scratch / "online.html", online.to_pylist(), numbers)
        document = {"schema_version": SCHEMA_VERSION, "config": to_dict(config), "counts": numbers}
        write_json(scratch / EXPOSURES_FILE, document)
    return numbers


def _events(log: EventLog | None, export: Path | None) -> Iterator[pa.RecordBatch]:
    if export is not None:
        _require(export, _NEEDED)
        with pq.ParquetFile(export) as file:
            kept = [name for name in LOG_SCHEMA.names if name in file.schema_arrow.names]
            yield from file.iter_batches(columns=kept)
    if log is not None:
        yield from log.batches()


def _require(path: Path, names: tuple[str, ...] | list[str]) -> None:
    try:
        found = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable as Parquet ({error})", where=path) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"no column {', '.join(missing)}", where=path, fix="name a file of exposures or of `elcrec events export`"
        )
