"""Small tables for a publication."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from elcrec.serving.ports import FeatureTables

TIME = pa.timestamp("us", tz="UTC")
SECOND = 1_000_000


def tables(
    histories: Mapping[str, Sequence[str]], *, bundle: str = "b1", items: Sequence[str] = ("i1", "i2")
) -> FeatureTables:
    """Histories with the times of a benchmark log: seconds after 1970-01-01."""
    times = [[(place + 1) * SECOND for place in range(len(row))] for row in histories.values()]
    users = pa.array(histories, pa.string())
    rows = pa.table(
        {
            "user_id": users,
            "item_ids": pa.array(histories.values(), pa.list_(pa.string())),
            "event_times": pa.array(times, pa.list_(TIME)),
            "event_timestamp": pa.array([row[-1] for row in times], TIME),
        }
    )
    outputs = {
        "user_id": users,
        "intent": pa.array(range(-1, len(histories) - 1), pa.int64()),
        "vector": pa.array([[0.5, float(row)] for row in range(len(histories))], pa.list_(pa.float32())),
        "bundle": pa.array([bundle] * len(histories)),
    }
    return FeatureTables(
        histories=rows,
        earlier=[],
        model_outputs=pa.table(outputs),
        item_statistics=pa.table(
            {"item_id": items, "count": [0, *[4] * (len(items) - 1)], "total": [1, *[5] * (len(items) - 1)]}
        ),
    )
