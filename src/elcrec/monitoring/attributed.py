"""Reading the output of `elcrec exposures`."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, read_json
from elcrec.errors import UserError
from elcrec.monitoring.attribution import ATTRIBUTED_SCHEMA

ATTRIBUTED_FILE = "attributed.parquet"
_RUN_FIRST = "run `elcrec exposures` first"


def read_window(folder: Path, *, lacking: Collection[str] = ()) -> float:
    """Return the window of attribution in seconds; a table of an older version may lack some columns.

    Raises:
        UserError: the folder is not an output of `elcrec exposures`, or another column is missing.
    """
    written, table = read_json(folder / "exposures.json"), folder / ATTRIBUTED_FILE
    try:
        names = pq.read_schema(table).names
        window = float(written["config"]["window"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable as Parquet ({error})", where=table, fix=_RUN_FIRST) from error
    except (KeyError, TypeError, ValueError) as error:
        where = folder / "exposures.json"
        raise UserError("not an output of `elcrec exposures`", where=where, fix=_RUN_FIRST) from error
    missing = [name for name in ATTRIBUTED_SCHEMA.names if name not in names and name not in lacking]
    if missing or written.get("schema_version") != SCHEMA_VERSION:
        lacks = f"no column {', '.join(missing)}" if missing else "another schema version"
        raise UserError(lacks, where=table, fix=_RUN_FIRST)
    return window


def is_settled(day: int, now: datetime, window: float) -> bool:
    """Return whether all events that may follow from the answers of a day (since 1970, UTC) have happened."""
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day + 1)
    return end + timedelta(seconds=window) <= now
