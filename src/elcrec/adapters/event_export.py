"""Export of the event log as a raw log for the stage validate: each event once, out of core, atomically."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import atomic_file, require_parquet_name
from elcrec.errors import UserError
from elcrec.serving.histories import UNITS
from elcrec.serving.ports import LOG_SCHEMA, EventLog

_MEMORY = "1GB"
_ROWS_AT_ONCE = 50_000
_COLUMNS = ("user_id", "item_id", "timestamp")
_SCHEMA = pa.schema([LOG_SCHEMA.field(name) for name in (*_COLUMNS, "event_id")])
_OPTIONAL = ("answer_id", "kind")

# In order of arrival; ties are ordered independently of how the log was read.
_PLACES = "logged, user_id, timestamp, item_id, event_id"
_ONCE = f"""
CREATE TABLE events AS SELECT * EXCLUDE (of_id, of_place) FROM (
    SELECT *, row_number() OVER (PARTITION BY user_id, event_id ORDER BY {_PLACES}) AS of_id,
        row_number() OVER (PARTITION BY user_id, item_id, timestamp ORDER BY {_PLACES}) AS of_place
    FROM arrived
) WHERE of_id = 1 AND of_place = 1
"""
_NEW = f"""
SELECT user_id, item_id, timestamp, event_id, answer_id, kind FROM events
WHERE NOT EXISTS (SELECT 1 FROM base WHERE base.user_id = events.user_id AND base.event_id = events.event_id)
AND NOT EXISTS (
    SELECT 1 FROM base WHERE base.user_id = events.user_id AND base.item_id = events.item_id
    AND epoch_us(base.timestamp) // $unit = epoch_us(events.timestamp) // $unit
)
AND NOT EXISTS (
    SELECT 1 FROM base WHERE base.user_id = events.user_id AND base.item_id = events.item_id
    AND epoch_us(base.timestamp) // $unit = (epoch_us(events.timestamp) + $unit - 1) // $unit
)
ORDER BY {_PLACES}
"""


def export_events(log: EventLog, out: Path, *, base: Path | None = None) -> dict[str, int]:
    """Write the log as Parquet: `user_id`, `item_id`, `timestamp`, `event_id`, each event once.

    If events name the answer that they follow, or their kind, there are columns `answer_id` and `kind` as well.
    Exporting the same log again writes the same bytes.

    Args:
        log: the event log to export.
        out: the file to write.
        base: an earlier log to put before it, with these columns (`event_id` may be absent), such as the
            interactions.parquet of the last training. An event that the base already holds, under its id or with its
            time cut or rounded to the base's resolution, is left out.

    Returns:
        The numbers of rows from `base` and from the log.

    Raises:
        UserError: `base` is not such a file, `out` is not named .parquet, or there is nothing to write.
        StoreUnavailable: the log does not answer.
    """
    require_parquet_name(out)
    out = out.absolute()
    with atomic_file(out) as scratch, tempfile.TemporaryDirectory(prefix=".events.", dir=out.parent) as folder:
        with duckdb.connect(str(Path(folder) / "events.db")) as database:
            database.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 1; SET preserve_insertion_order = true")
            _load(database, log)
            unit = _attach(database, base)
            rows = _write(database, scratch, base, unit, _schema(database, base))
        if not sum(rows.values()):
            raise UserError("the event log is empty", fix="nothing was written")
    return rows


def _load(database: duckdb.DuckDBPyConnection, log: EventLog) -> None:
    arrived = pa.RecordBatchReader.from_batches(LOG_SCHEMA, log.batches())
    database.register("incoming", arrived)
    database.execute("CREATE TABLE arrived AS SELECT * FROM incoming")
    database.execute(_ONCE)


def _attach(database: duckdb.DuckDBPyConnection, base: Path | None) -> int:
    """Make the base available to SQL; return the unit of its times in microseconds."""
    if base is None:
        database.register("base", _SCHEMA.empty_table())
        return 1
    columns = ", ".join([*_COLUMNS, "event_id" if "event_id" in _base_columns(base) else "NULL AS event_id"])
    database.read_parquet(str(base)).project(columns).create_view("base")
    whole = ", ".join(f"bool_and(epoch_us(timestamp) % {unit} = 0)" for unit in UNITS)
    (found,) = database.execute(f"SELECT {whole} FROM base").fetchall()
    return next(unit for unit, holds in zip(UNITS, found, strict=True) if holds is not False)


def _base_columns(base: Path) -> list[str]:
    try:
        schema = pq.read_schema(base)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable as Parquet ({error})", where=base) from error
    texts = all(name in schema.names and pa.types.is_string(schema.field(name).type) for name in ("user_id", "item_id"))
    if not texts or "timestamp" not in schema.names or not pa.types.is_timestamp(schema.field("timestamp").type):
        what = "expected user_id and item_id as text, and timestamp as a time"
        raise UserError(what, where=base, fix="name an interactions.parquet of the stage validate, or an export")
    return list(schema.names)


def _schema(database: duckdb.DuckDBPyConnection, base: Path | None) -> pa.Schema:
    """Return the columns to write; optional columns only if some event has a value."""
    (named,) = database.execute(f"SELECT {', '.join(f'count({name})' for name in _OPTIONAL)} FROM events").fetchall()
    in_base = [] if base is None else _base_columns(base)
    wanted = [name for name, count in zip(_OPTIONAL, named, strict=True) if count or name in in_base]
    return pa.schema([*_SCHEMA, *(LOG_SCHEMA.field(name) for name in wanted)])


def _write(
    database: duckdb.DuckDBPyConnection, scratch: Path, base: Path | None, unit: int, schema: pa.Schema
) -> dict[str, int]:
    counts = {"base": 0, "events": 0}
    with pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
        if base is not None:
            for batch in _base_rows(base, schema):
                counts["base"] += len(batch)
                writer.write_batch(batch, row_group_size=_ROWS_AT_ONCE)
        for batch in database.sql(_NEW, params={"unit": unit}).to_arrow_reader(_ROWS_AT_ONCE):
            counts["events"] += len(batch)
            writer.write_batch(batch.select(schema.names).cast(schema), row_group_size=_ROWS_AT_ONCE)
    return counts


def _base_rows(base: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the base in its own order, with the columns of `schema`."""
    with pq.ParquetFile(base) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            absent = pa.nulls(len(batch), pa.string())
            columns = [batch[name] if name in batch.schema.names else absent for name in schema.names]
            yield pa.record_batch(columns, names=schema.names).cast(schema)
