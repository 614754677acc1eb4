"""The oracle of the stage validate: the same result on whole columns in memory, with NumPy and pandas."""

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.data.forgotten import Forgotten
from elcrec.data.interactions import EVENT_ID
from elcrec.data.profile import LENGTH_EDGES, POPULAR_ITEMS
from elcrec.data.rows import CLOCK_TOLERANCE
from elcrec.data.times import TIMESTAMP

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

COLUMNS = ["user_id", "item_id", "micros"]


def broken_rows(log: pa.Table, max_id_length: int, now: datetime, earliest: int = 0) -> dict[str, Bools]:
    """Say for each row of a log (in the columns of `RawLog.parts`) which rules it breaks, in their order."""
    torn, given = (np.asarray(log[name].to_numpy(zero_copy_only=False), bool) for name in ("torn", "given"))
    micros = _numbers(log["micros"])
    users, items = (_numbers(pc.utf8_length(log[name])) for name in ("user_id", "item_id"))
    latest = pa.scalar(now + CLOCK_TOLERANCE, TIMESTAMP).cast(pa.int64()).as_py()
    with_ids = EVENT_ID in log.column_names
    event_ids = (
        {"event_id is short enough": _numbers(pc.utf8_length(log[EVENT_ID])) > max_id_length} if with_ids else {}
    )
    return {
        "user_id is present": ~torn & np.isnan(users),
        "item_id is present": ~torn & np.isnan(items),
        "user_id is short enough": users > max_id_length,
        "item_id is short enough": items > max_id_length,
        **event_ids,
        "timestamp is present": ~torn & ~given,
        "timestamp is readable": given & np.isnan(micros),
        "timestamp is not negative": micros < 0,
        **({"timestamp is plausible": (micros >= 0) & (micros < earliest)} if earliest else {}),
        "timestamp is not in the future": micros > latest,
        "event is unique": copies(log),
        "row has the header's number of fields": torn,
    }


def copies(log: pa.Table) -> Bools:
    """Say for each row whether one before it has the same user, item and time, or the same user and event id."""
    found = _repeated(log, COLUMNS)
    return found | _repeated(log, ["user_id", EVENT_ID]) if EVENT_ID in log.column_names else found


def _repeated(log: pa.Table, columns: list[str]) -> Bools:
    """Say for each row whether one before it has the same values in these columns; neither lacks one."""
    complete = np.logical_and.reduce([log[name].is_valid().to_numpy() for name in columns])
    keys = pd.DataFrame({name: integer_keys(log[name])[complete] for name in columns}, copy=False)
    found = np.zeros(len(log), bool)
    found[complete] = keys.duplicated().to_numpy()
    return found


def without_forgotten(log: pa.Table, forgotten: Forgotten) -> tuple[pa.Table, Ints]:
    """Return the rows of a log that count, and where they stand in it."""
    kept = ~forgotten.rows(log["user_id"], log["micros"].cast(TIMESTAMP))
    return log.filter(pa.array(kept)), np.flatnonzero(kept)


def sort_out(log: pa.Table, rows: Ints, broken: dict[str, Bools]) -> tuple[pa.Table, pa.Table]:
    """Split the rows of a log, which stand at `rows` in it, into interactions and quarantine."""
    reason = np.full(len(log), -1)
    for index, breaking in reversed(list(enumerate(broken.values()))):
        reason[breaking] = index
    faulty = log.filter(reason >= 0)
    quarantine = {
        "row": rows[reason >= 0],
        "user_id": faulty["user_id"],
        "item_id": faulty["item_id"],
        "timestamp": faulty["raw_time"].cast(pa.string()),
        "reason": pa.array(list(broken), pa.string()).take(pa.array(reason[reason >= 0])),
    }
    good = log.filter(reason < 0)
    columns = {name: good[name] for name in ("user_id", "item_id")}
    columns |= {"timestamp": good["micros"].cast(TIMESTAMP)}
    columns |= {EVENT_ID: good[EVENT_ID]} if EVENT_ID in log.column_names else {}
    return pa.table(columns), pa.table(quarantine)


def count_out_of_order(interactions: pa.Table) -> int:
    """Return how many events stand in the log after a later event of the same user."""
    user, time = (integer_keys(interactions[name]) for name in ("user_id", "timestamp"))
    order = np.argsort(user, kind="stable")
    user, time = user[order], time[order]
    return int(((np.diff(time) < 0) & (np.diff(user) == 0)).sum())


def event_counts(ids: pa.ChunkedArray) -> pa.Table:
    """Return `values` and `counts` of a column, the most frequent first, equal counts by id."""
    counts = pa.Table.from_struct_array(pc.value_counts(ids))
    return counts.sort_by([("counts", "descending"), ("values", "ascending")])


def profile_of(interactions: pa.Table) -> dict[str, object]:
    """Return what of a profile is counted."""
    lengths = event_counts(interactions["user_id"])["counts"].to_numpy()
    items = event_counts(interactions["item_id"])
    popular, rows = items.slice(0, POPULAR_ITEMS).to_pydict(), len(interactions)
    classes = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
    shares = {name: round(count / rows, 9) for name, count in zip(popular["values"], popular["counts"], strict=True)}
    return {
        "rows": rows,
        "users": len(lengths),
        "items": len(items),
        "length_counts": np.bincount(classes, minlength=len(LENGTH_EDGES)).tolist(),
        "item_shares": shares,
    }


def integer_keys(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return integers that are equal where the values are, none of a value's for null."""
    if pa.types.is_string(column.type):
        column = pc.dictionary_encode(column).combine_chunks().indices
    return np.asarray(pc.fill_null(column.cast(pa.int64()), np.iinfo(np.int64).min).to_numpy(), np.int64)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
