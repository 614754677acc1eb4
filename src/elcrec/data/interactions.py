"""The columns of interactions.parquet, which validate writes and sequences reads."""

from collections.abc import Collection

import pyarrow as pa

from elcrec.data.times import TIMESTAMP

EVENT_ID = "event_id"
"""Optional column of a log and of interactions: the ids of events."""
KIND = "kind"
"""Optional column: the kind of event of a row."""
TIE = "tie"
"""Optional column: orders events with the same time."""

_COLUMNS = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", TIMESTAMP)])
_MORE = (pa.field(EVENT_ID, pa.string()), pa.field(KIND, pa.string()), pa.field(TIE, pa.int64()))


def interaction_schema(more: Collection[str] = ()) -> pa.Schema:
    """Return the columns, including those of EVENT_ID, KIND and TIE that `more` names."""
    return pa.schema([*_COLUMNS, *(field for field in _MORE if field.name in more)])
