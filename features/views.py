"""Feature views.

A view's TTL is the time for which a row is valid. Point-in-time joins leave older rows out; Feast does not enforce the
TTL online, so `elcrec` ignores older rows when it reads.
"""

from datetime import timedelta

from entities import item, user
from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String
from sources import history_events, item_statistics_file, model_output_file

WINDOW = 50
"""Number of most recent events in an online history; `sequences.history` must not exceed it."""

_FOR_EVER = timedelta(0)
_TWO_PUSHES_MISSED = timedelta(days=15)
"""TTL of model outputs: models are pushed weekly, and an output older than two pushes is out of date."""

user_history = FeatureView(
    name="user_history",
    entities=[user],
    # Histories do not expire; a reader sees their age by the time of the last event.
    ttl=_FOR_EVER,
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="item_ids", dtype=Array(String), description="Recent items, oldest first."),
        # Not UnixTimestamp, which Feast keeps in whole seconds: one second may have several clicks.
        Field(name="event_times", dtype=Array(Int64), description="Time of each item, microseconds since 1970, UTC."),
        Field(name="event_ids", dtype=Array(String), description="Id of each live event; empty for published ones."),
        Field(
            name="seen_items", dtype=Array(String), description="Seen items: those before this history, in no order."
        ),
    ],
    source=history_events,
    tags={"window": str(WINDOW)},
)
user_model_output = FeatureView(
    name="user_model_output",
    entities=[user],
    ttl=_TWO_PUSHES_MISSED,
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="intent", dtype=Int64, description="Nearest intent centre; -1 if there is none."),
        Field(name="vector", dtype=Array(Float32), description="State after the last item."),
        Field(name="bundle", dtype=String, description="Digest of the bundle that computed the row."),
    ],
    source=model_output_file,
)
item_statistics = FeatureView(
    name="item_statistics",
    entities=[item],
    ttl=_TWO_PUSHES_MISSED,
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="count", dtype=Int64, description="Training interactions."),
        Field(name="total", dtype=Int64, description="All interactions."),
    ],
    source=item_statistics_file,
)
