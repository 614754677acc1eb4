"""Reading the output of `elcrec exposures`."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import read_document
from elcrec.errors import UserError
from elcrec.monitoring.attribution import ATTRIBUTED_SCHEMA

ATTRIBUTED_FILE, EXPOSURES_FILE = "attributed.parquet", "exposures.json"
DAY_SQL = "CAST(floor(unix_micros(time) / 86400000000.0) AS BIGINT)"
"""The day of an answer since 1970, UTC."""
_RUN_FIRST = "run `elcrec exposures` first"


class _Section(msgspec.Struct):
    window: float


class _Written(msgspec.Struct):
    """What is read of exposures.json."""

    config: _Section


def read_window(folder: Path, *, lacking: Collection[str] = ()) -> float:
    """Return the window of attribution in seconds; a table of an older version may lack some columns.

    Raises:
        UserError: the folder is not an output of `elcrec exposures`, or another column is missing.
    """
    name, table = "what `elcrec exposures` writes", folder / ATTRIBUTED_FILE
    written = read_document(folder / EXPOSURES_FILE, _Written, name=name, fix=_RUN_FIRST)
    try:
        names = pq.read_schema(table).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable as Parquet ({error})", where=table, fix=_RUN_FIRST) from error
    missing = [name for name in ATTRIBUTED_SCHEMA.names if name not in names and name not in lacking]
    if missing:
        raise UserError(f"no column {', '.join(missing)}", where=table, fix=_RUN_FIRST)
    return written.config.window


def is_settled(day: int, now: datetime, window: float) -> bool:
    """Return whether all events that may follow from the answers of a day (since 1970, UTC) have happened."""
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day + 1)
    return end + timedelta(seconds=window) <= now
