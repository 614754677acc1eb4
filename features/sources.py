"""The sources of features: Parquet files that `elcrec push` writes into the store folder."""

import os
from pathlib import Path

from feast import FileSource, PushSource

_DEFAULT_STORE = Path(__file__).resolve().parent.parent / "artifacts" / "store"
_DATA = Path(os.environ.get("ELCREC_STORE", _DEFAULT_STORE)).absolute() / "feast" / "data"
# SQLite cannot open a file in a missing folder, and `feast apply` may run before the first push.
_DATA.mkdir(parents=True, exist_ok=True)

history_file = FileSource(
    name="history_file",
    path=str(_DATA / "history_rows.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
history_events = PushSource(name="history_events", batch_source=history_file)
"""A push replaces a user's whole row. `elcrec events` and the server add events to the row instead, atomically."""

model_output_file = FileSource(
    name="model_output_file",
    path=str(_DATA / "model_outputs.parquet"),
    timestamp_field="event_timestamp",
)
item_statistics_file = FileSource(
    name="item_statistics_file",
    path=str(_DATA / "item_statistics.parquet"),
    timestamp_field="event_timestamp",
)
