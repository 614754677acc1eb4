"""Feature views. No view expires (`ttl` is zero): Feast does not enforce it online, so readers judge age."""

from datetime import timedelta

from entities import item, user
from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String, UnixTimestamp
from sources import history_events, item_statistics_file, model_output_file

user_history = FeatureView(
    name="user_history",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="item_ids", dtype=Array(String), description="Recent items, oldest first."),
        Field(name="event_times", dtype=Array(UnixTimestamp), description="Time of each item."),
    ],
    source=history_events,
)
user_model_output = FeatureView(
    name="user_model_output",
    entities=[user],
    ttl=timedelta(0),
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
    ttl=timedelta(0),
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="count", dtype=Int64, description="Training interactions."),
        Field(name="total", dtype=Int64, description="All interactions."),
    ],
    source=item_statistics_file,
)
