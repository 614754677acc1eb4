"""The columns of interactions.parquet, which validate writes and sequences reads."""

import pyarrow as pa

from elcrec.data.times import TIMESTAMP

EVENT_ID = "event_id"
"""The column of a log, and of interactions, that is there where the log has ids of its events."""

_COLUMNS = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", TIMESTAMP)])


def interaction_schema(*, event_ids: bool) -> pa.Schema:
    """Return the columns, with the ids of events or without."""
    return _COLUMNS.append(pa.field(EVENT_ID, pa.string())) if event_ids else _COLUMNS
