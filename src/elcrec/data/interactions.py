"""The columns of interactions.parquet, which validate writes and sequences reads."""

from collections.abc import Collection

import pyarrow as pa

from elcrec.data.times import TIMESTAMP

EVENT_ID = "event_id"
"""The column of a log, and of interactions, that is there where the log has ids of its events."""
KIND = "kind"
"""The column that says what kind of event a row is, where that is asked for."""
TIE = "tie"
"""The column by which events of the same time are ordered, where that is asked for."""

_COLUMNS = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", TIMESTAMP)])
_MORE = (pa.field(EVENT_ID, pa.string()), pa.field(KIND, pa.string()), pa.field(TIE, pa.int64()))


def interaction_schema(more: Collection[str] = ()) -> pa.Schema:
    """Return the columns, with those of EVENT_ID, KIND and TIE that are among `more`."""
    return pa.schema([*_COLUMNS, *(field for field in _MORE if field.name in more)])
