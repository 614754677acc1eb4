"""What a log looks like in a few numbers, and how far it has moved since the last one that was accepted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.artifacts import SCHEMA_VERSION
from elcrec.data.log import TimeKind

LENGTH_EDGES = [1, 2, 3, 4, 5, 6, 8, 11, 16, 26, 51, 101]
"""Where the classes of history length begin; the last one is open."""
POPULAR_ITEMS = 1000
"""Items whose shares a profile keeps; all others count together."""

_GROUPS = 10
_SMALLEST_SHARE = 1e-4

Profile = dict[str, Any]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def describe(interactions: pa.Table, *, dataset: str, time: TimeKind, md5: str) -> Profile:
    """Return the profile of accepted interactions; `md5` is the raw file's."""
    lengths = event_counts(interactions["user_id"])["counts"].to_numpy()
    items = event_counts(interactions["item_id"])
    popular = items.slice(0, POPULAR_ITEMS).to_pydict()
    rows = len(interactions)
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "time": time,
        "md5": md5,
        "rows": rows,
        "users": len(lengths),
        "items": len(items),
        "length_counts": length_histogram(lengths).tolist(),
        "item_shares": {
            name: round(count / rows, 9) for name, count in zip(popular["values"], popular["counts"], strict=True)
        },
    }


def event_counts(ids: pa.ChunkedArray) -> pa.Table:
    """Return `values` and `counts` of a column, the most frequent first, equal counts by id."""
    counts = pa.Table.from_struct_array(pc.value_counts(ids))
    return counts.sort_by([("counts", "descending"), ("values", "ascending")])


def length_histogram(lengths: Counts) -> Counts:
    """Return how many users fall into each class of history length, [len(LENGTH_EDGES)]."""
    classes = np.searchsorted(LENGTH_EDGES, lengths, side="right") - 1
    return np.bincount(classes, minlength=len(LENGTH_EDGES))


def length_drift(profile: Profile, previous: Profile) -> float:
    """Return the population stability index of history length."""
    return stability_index(
        np.asarray(profile["length_counts"], np.float64), np.asarray(previous["length_counts"], np.float64)
    )


def popularity_drift(interactions: pa.Table, previous: Profile) -> float:
    """Return the population stability index of item popularity.

    The previous log's popular items form ten groups of about equal weight, by rank; all other items are
    the eleventh. Groups, because single items are too rare for the index: it would measure chance.
    """
    shares = np.asarray(list(previous["item_shares"].values()), np.float64)
    before = np.concatenate([_by_group(shares, shares), [max(0.0, 1.0 - shares.sum())]])
    names = pa.array(list(previous["item_shares"]), pa.string())
    place = pc.index_in(interactions["item_id"], value_set=names).fill_null(len(names)).to_numpy()
    counts = np.bincount(place, minlength=len(names) + 1).astype(np.float64)
    now = np.concatenate([_by_group(shares, counts[:-1]), counts[-1:]])
    return stability_index(now, before)


def _by_group(shares: Floats, weights: Floats) -> Floats:
    """Sum `weights` over the groups that `shares`, in descending order, form."""
    middle = (np.cumsum(shares) - shares / 2) / shares.sum()
    sums = np.bincount((middle * _GROUPS).astype(np.int64), weights, _GROUPS)
    return sums.astype(np.float64)


def stability_index(now: Floats, before: Floats) -> float:
    """Return sum((p - q) ln(p / q)) over classes; 0 is no change, above 0.25 is a large one."""
    p, q = (np.maximum(counts / counts.sum(), _SMALLEST_SHARE) for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())


def row_change(profile: Profile, previous: Profile) -> float:
    """Return the relative change of the number of rows, without its sign."""
    return abs(int(profile["rows"]) / int(previous["rows"]) - 1.0)
