"""The profile of a log in a few numbers, and its drift from the last accepted log."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.artifacts import SCHEMA_VERSION
from elcrec.data.engine import Session
from elcrec.data.log import TimeKind
from elcrec.data.suspects import Alike, Suspect, find_alike, largest
from elcrec.data.times import DAY
from elcrec.data.versions import Sketches, longest_gap, sketch

LENGTH_EDGES = [1, 2, 3, 4, 5, 6, 8, 11, 16, 26, 51, 101]
"""Lower edges of the classes of history length; the last class is open."""
POPULAR_ITEMS = 1000
"""Number of items whose shares a profile keeps; all other items count together."""

_GROUPS = 10
_SMALLEST_SHARE = 1e-4

Profile = dict[str, Any]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Figures(NamedTuple):
    """Figures of accepted interactions, in tables that grow much more slowly than the log.

    Attributes:
        users, items: numbers of users and items.
        lengths: `events`, `users`: number of users with that many events.
        counts: `events`, `items`: number of items with that many events.
        popular: `item_id`, `events` of the `POPULAR_ITEMS` most frequent items, equal counts ordered by id.
        days: `day` (its start in microseconds), `events`.
        first, last: the earliest and the latest time in microseconds; `None` without interactions.
        largest: the user and the item with most events, if there are events.
        alike: users and items whose ids look like another's.
        sketches: samples of the ids, for comparison with another log.
    """

    users: int
    items: int
    lengths: pa.Table
    counts: pa.Table
    popular: pa.Table
    days: pa.Table
    first: int | None
    last: int | None
    largest: tuple[Suspect | None, Suspect | None] = (None, None)
    alike: tuple[Alike, Alike] = (Alike(), Alike())
    sketches: Sketches = Sketches([], [])


def measure(session: Session) -> Figures:
    """Measure the view `accepted`; keep the table `item_counts`, the events of each item."""
    session.table("user_counts", "SELECT user_id, count(*) AS events FROM accepted GROUP BY user_id")
    session.table("item_counts", "SELECT item_id, count(*) AS events FROM accepted GROUP BY item_id")
    day = f"micros - micros % {DAY}"
    lengths = session.fetch("SELECT events, count(*) AS users FROM user_counts GROUP BY events ORDER BY events")
    counts = session.fetch("SELECT events, count(*) AS items FROM item_counts GROUP BY events ORDER BY events")
    popular = f"SELECT item_id, events FROM item_counts ORDER BY events DESC, item_id LIMIT {POPULAR_ITEMS}"
    days = session.fetch(f"SELECT {day} AS day, count(*) AS events FROM accepted GROUP BY {day} ORDER BY day")
    (ends,) = session.fetch("SELECT min(micros) AS first, max(micros) AS last FROM accepted").to_pylist()
    tables = {"user_counts": "user_id", "item_counts": "item_id"}
    user, item = (largest(session, table, column) for table, column in tables.items())
    alike_users, alike_items = (find_alike(session, table, column) for table, column in tables.items())
    sketches = Sketches(*(sketch(session, table, column) for table, column in tables.items()))
    session.drop("user_counts")
    return Figures(
        users=_sum(lengths["users"]),
        items=_sum(counts["items"]),
        lengths=lengths,
        counts=counts,
        popular=session.fetch(popular),
        days=days,
        **ends,
        largest=(user, item),
        alike=(alike_users, alike_items),
        sketches=sketches,
    )


def _sum(column: pa.ChunkedArray) -> int:
    return int(np.asarray(column, np.int64).sum())


def count_out_of_order(session: Session) -> int:
    """Return the number of events of the view `accepted` that follow a later event of the same user in the log."""
    before = "lag(micros) OVER (PARTITION BY user_id ORDER BY row)"
    steps = f"SELECT micros, {before} AS before FROM accepted"
    (found,) = session.fetch(f"SELECT count(*) AS events FROM ({steps}) steps WHERE micros < before").to_pylist()
    return int(found["events"])


def describe(figures: Figures, *, dataset: str, time: TimeKind, md5: str) -> Profile:
    """Return the profile of accepted interactions; `md5` is the raw file's."""
    rows = int((np.asarray(figures.lengths["events"]) * np.asarray(figures.lengths["users"])).sum())
    popular, largest_user = figures.popular.to_pydict(), figures.largest[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "time": time,
        "md5": md5,
        "rows": rows,
        "users": figures.users,
        "items": figures.items,
        "length_counts": length_histogram(figures.lengths).tolist(),
        "item_shares": {
            name: round(count / rows, 9) for name, count in zip(popular["item_id"], popular["events"], strict=True)
        },
        "first": figures.first,
        "last": figures.last,
        "largest_user_share": round(largest_user.events / rows, 9) if largest_user and rows else 0.0,
        "longest_gap_days": longest_gap(figures.days, DAY),
    }


def length_histogram(lengths: pa.Table) -> Counts:
    """Return the number of users in each class of history length, [len(LENGTH_EDGES)]."""
    classes = np.searchsorted(LENGTH_EDGES, np.asarray(lengths["events"]), side="right") - 1
    users = np.bincount(classes, np.asarray(lengths["users"]), minlength=len(LENGTH_EDGES))
    return users.astype(np.int64)


def count_popular_before(session: Session, previous: Profile) -> Counts:
    """Return the events in `item_counts` of each popular item of the previous log, and last of all others, [P + 1]."""
    names = list(previous["item_shares"])
    session.enter("before", pa.table({"place": np.arange(len(names)), "item_id": pa.array(names, pa.string())}))
    joined = "FROM before JOIN item_counts ON before.item_id = item_counts.item_id"
    found = session.fetch(f"SELECT place, events {joined}")
    (total,) = session.fetch("SELECT count(*) AS events FROM accepted").to_pylist()
    counts = np.zeros(len(names) + 1, np.int64)
    counts[np.asarray(found["place"])] = np.asarray(found["events"])
    counts[-1] = total["events"] - counts.sum()
    return counts


def length_drift(profile: Profile, previous: Profile) -> float:
    """Return the population stability index of history length."""
    return stability_index(
        np.asarray(profile["length_counts"], np.float64), np.asarray(previous["length_counts"], np.float64)
    )


def popularity_drift(counts: Counts, previous: Profile) -> float:
    """Return the population stability index of item popularity, from the result of `count_popular_before`.

    The previous log's popular items form ten groups of about equal weight, by rank; all other items are the eleventh.
    Groups are used because single items are too rare: the index would measure chance.
    """
    shares = np.asarray(list(previous["item_shares"].values()), np.float64)
    before = np.concatenate([_by_group(shares, shares), [max(0.0, 1.0 - shares.sum())]])
    events = counts.astype(np.float64)
    now = np.concatenate([_by_group(shares, events[:-1]), events[-1:]])
    return stability_index(now, before)


def _by_group(shares: Floats, weights: Floats) -> Floats:
    """Sum `weights` over the groups formed by `shares`, which are in descending order."""
    middle = (np.cumsum(shares) - shares / 2) / shares.sum()
    sums = np.bincount((middle * _GROUPS).astype(np.int64), weights, _GROUPS)
    return sums.astype(np.float64)


def stability_index(now: Floats, before: Floats) -> float:
    """Return sum((p - q) ln(p / q)) over classes; 0 is no change, above 0.25 is a large change."""
    p, q = (np.maximum(counts / counts.sum(), _SMALLEST_SHARE) for counts in (now, before))
    return float(((p - q) * np.log(p / q)).sum())


def row_change(profile: Profile, previous: Profile) -> float:
    """Return the absolute relative change of the number of rows."""
    return abs(int(profile["rows"]) / int(previous["rows"]) - 1.0)
