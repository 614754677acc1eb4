"""What lies before the served histories: as they stood when a target was asked for, and items met earlier."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.data.dataset import Split, load_item_ids, load_sequences, load_user_ids
from elcrec.errors import UserError

_SPLITS: tuple[Split, ...] = ("valid", "test")


def split_point_histories(folder: Path, most: int) -> pa.Table:
    """Return each user's history before each of her targets: the columns of histories.parquet, a row a target.

    A row's `event_timestamp` is the time of its newest item, so a point-in-time join at any moment from then until
    the target finds it.

    Args:
        folder: the sequences stage's output.
        most: items kept of each history, the most recent.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    data = load_sequences(folder)
    item_ids = pa.array(load_item_ids(folder, data), pa.string())
    path = folder / "sequences.parquet"
    try:
        table = pq.read_table(path, columns=["user_id", "timestamps"]).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    times = table["timestamps"].combine_chunks().flatten()
    tables = []
    for split in _SPLITS:
        users = np.flatnonzero(data.targets[split] >= 0)
        ends = data.sequences.offsets[users] + data.targets[split][users]
        places = type(data.sequences)(values=np.arange(len(times)), offsets=data.sequences.offsets)
        kept = places.spans(np.maximum(data.sequences.offsets[users], ends - most), ends)
        offsets, rows = pa.array(kept.offsets, pa.int32()), pa.array(kept.values)
        items = item_ids.take(pa.array(data.sequences.values[kept.values] - 1))
        columns = {
            "user_id": table["user_id"].take(pa.array(users)).cast(pa.string()),
            "item_ids": pa.ListArray.from_arrays(offsets, items),
            "event_times": pa.ListArray.from_arrays(offsets, times.take(rows)),
            "event_timestamp": times.take(pa.array(ends - 1)),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def seen_items(folder: Path, histories: pa.Table, most: int) -> pa.ChunkedArray:
    """Return what each user met before her history in `histories`: raw ids, the most recent `most`, a list a row.

    Args:
        folder: the sequences stage's output.
        histories: its histories.parquet.
        most: items kept of each user.

    Raises:
        UserError: the folder is not the output of the sequences stage, or the two are not of the same users.
    """
    data = load_sequences(folder)
    if not load_user_ids(folder).cast(pa.string()).equals(histories["user_id"].cast(pa.string())):
        raise UserError(
            "histories of other users than the sequences", where=folder, fix="run the sequences stage again"
        )
    starts, lengths = data.sequences.offsets[:-1], pc.list_value_length(histories["item_ids"]).to_numpy()
    ends = data.sequences.offsets[1:] - lengths
    kept = data.sequences.spans(np.maximum(starts, ends - most), ends)
    items = pa.array(load_item_ids(folder, data), pa.string()).take(pa.array(kept.values - 1))
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(kept.offsets, pa.int32()), items)])
