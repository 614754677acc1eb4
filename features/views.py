"""Feature views.

A view's TTL says for how long a row is worth reading. Point-in-time joins leave older rows out; Feast does not
enforce it online, so `elcrec` leaves out what is older when it reads.
"""

from datetime import timedelta

from entities import item, user
from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String
from sources import history_events, item_statistics_file, model_output_file

WINDOW = 50
"""Most recent events that a history keeps online; `sequences.history` may not exceed it."""

_FOR_EVER = timedelta(0)
_TWO_PUSHES_MISSED = timedelta(days=15)
"""Models are pushed weekly; an output that outlives two pushes describes a user, or an item, of another time."""

user_history = FeatureView(
    name="user_history",
    entities=[user],
    # What a user did stays true however long ago; whoever ranks sees how old it is by the time of its last event.
    ttl=_FOR_EVER,
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="item_ids", dtype=Array(String), description="Recent items, oldest first."),
        # Not UnixTimestamp: Feast keeps that in whole seconds, and a second holds more than one click.
        Field(name="event_times", dtype=Array(Int64), description="Time of each item, microseconds since 1970, UTC."),
        Field(name="event_ids", dtype=Array(String), description="Id of each live event; empty where published."),
        Field(name="seen_items", dtype=Array(String), description="Items met before all these, in no order."),
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
        Field(name="intent", dtype=Int64, description="Nearest intent centre; -1 where there is none."),
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
