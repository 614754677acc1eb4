"""Reading a log for a push, some users at a time: served histories, and histories at earlier moments.

Both come from the sequences stage's output, whose two files have the same users in the same order. If a user's events
were cut into sessions, only the newest session is served.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import read_json
from elcrec.data.dataset import load_item_ids, ragged_of
from elcrec.data.ragged import Ragged
from elcrec.data.row_groups import blocks
from elcrec.data.sessions import is_earlier_session
from elcrec.errors import UserError

DISLIKED = "\0"
"""Prefix, among a user's seen items, of a disliked one, if seen items may otherwise be recommended again."""

_EVENTS_AT_ONCE = 50_000
_USERS_AT_ONCE = 16_384
_HISTORIES, _SEQUENCES = "histories.parquet", "sequences.parquet"
_SERVED = ("user_id", "item_ids", "event_times", "event_timestamp")


@dataclass(frozen=True, kw_only=True)
class ServedHistories:
    """Each user's served history: the columns of histories.parquet, and `seen_items`.

    Seen items are the items before the history, then the disliked ones. If repeats are allowed, items may be
    recommended again, so DISLIKED marks those that must not. Iterating yields tables, and can be repeated.

    Attributes:
        folder: the sequences stage's output.
        most_seen: largest number of items from before the history; the most recent are kept.
    """

    folder: Path
    most_seen: int

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables.

        Raises:
            UserError: the folder is not the output of the sequences stage, or its files have different users.
        """
        item_ids = _item_ids(self.folder)
        marked = read_json(self.folder / "split.json").get("repeats") == "allow"
        columns = [*_SERVED, *_present(self.folder / _HISTORIES, "event_ids")]
        known = ["user_id", "items", *_present(self.folder / _SEQUENCES, "disliked")]
        for served, log in zip(
            _read_histories(self.folder, columns), _read(self.folder / _SEQUENCES, known), strict=False
        ):
            if not served["user_id"].cast(pa.string()).equals(log["user_id"].cast(pa.string())):
                what, fix = "histories of other users than the sequences", "run the sequences stage again"
                raise UserError(what, where=self.folder, fix=fix)
            seen = _seen(served, log, item_ids, self.most_seen, marked=marked)
            yield _of_users(served.append_column("seen_items", seen))


def read_users(folder: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield `user_id` and further columns of the served histories, some users at a time.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    for table in _read_histories(folder, ["user_id", *columns]):
        yield _of_users(table)


def _of_users(table: pa.Table) -> pa.Table:
    """Drop the earlier sessions."""
    return table.filter(pc.invert(is_earlier_session(table["user_id"])))


def _read_histories(folder: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    paths = [folder / name for name in (_HISTORIES, _SEQUENCES)]
    sizes = set()
    for path in paths:
        with _reading(path):
            sizes.add(pq.read_metadata(path).num_rows)
    if len(sizes) > 1:
        what, fix = "histories of other users than the sequences", "run the sequences stage again"
        raise UserError(what, where=folder, fix=fix)
    yield from _read(paths[0], columns)


def longest_history(folder: Path) -> int:
    """Return the length of the longest served history.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    lengths = (pc.max(pc.list_value_length(part["event_times"])) for part in _read_histories(folder, ["event_times"]))
    return max((length.as_py() or 0 for length in lengths), default=0)


def _seen(served: pa.Table, log: pa.Table, item_ids: pa.Array, most: int, *, marked: bool) -> pa.Array:
    items = ragged_of(log["items"])
    starts, lengths = items.offsets[:-1], pc.list_value_length(served["item_ids"]).to_numpy()
    ends = items.offsets[1:] - lengths
    kept = items.spans(np.maximum(starts, ends - most), ends)
    disliked = ragged_of(log["disliked"]) if "disliked" in log.column_names else None
    kept = kept if disliked is None else kept.followed_by(disliked).tail(most)
    named = item_ids.take(pa.array(kept.values - 1))
    if disliked is not None and marked:
        met = kept.lengths - np.minimum(disliked.lengths, kept.lengths)
        is_disliked = np.arange(len(kept.values)) - kept.offsets[kept.owners] >= met[kept.owners]
        with_mark = pc.binary_join_element_wise(pa.scalar(DISLIKED), named, pa.scalar(""))
        named = pc.if_else(pa.array(is_disliked), with_mark, named)
    return pa.ListArray.from_arrays(pa.array(kept.offsets, pa.int32()), named)


@dataclass(frozen=True, kw_only=True)
class HistoriesOverTime:
    """Each user's history as it was after each of their events except the last.

    Iterating yields tables with the columns of histories.parquet, one row per event, users and their events in order;
    no user is in two tables. A row's `event_timestamp` is the time of its newest item, so a point-in-time join at any
    moment finds the history of that moment. Iterating can be repeated.

    Attributes:
        folder: the sequences stage's output.
        most: largest number of items in a history; the most recent are kept.
    """

    folder: Path
    most: int

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables.

        Raises:
            UserError: the folder is not the output of the sequences stage.
        """
        item_ids = _item_ids(self.folder)
        for table in _read(self.folder / _SEQUENCES, ["user_id", "items", "timestamps"]):
            items = ragged_of(table["items"])
            log = _Log(
                users=table["user_id"].combine_chunks().cast(pa.string()),
                items=items,
                times=pc.list_flatten(table["timestamps"]).combine_chunks(),
                item_ids=item_ids,
            )
            for first, last in _parts(items.offsets):
                yield _of_users(log.histories(first, last, self.most))


@dataclass(frozen=True, kw_only=True)
class _Log:
    users: pa.Array
    items: Ragged
    times: pa.Array
    item_ids: pa.Array

    def histories(self, first: int, last: int, most: int) -> pa.Table:
        """Return the rows of the users from `first` to before `last`, with at most `most` items per history."""
        offsets = self.items.offsets[first : last + 1]
        lengths = np.diff(offsets)
        starts = np.repeat(offsets[:-1], lengths - 1)
        ends = np.concatenate([np.arange(start + 1, end) for start, end in pairwise(offsets)]).astype(np.int64)
        begins = np.maximum(starts, ends - most)
        counts = ends - begins
        places = np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
        lists = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
        users = np.repeat(np.arange(first, last), lengths - 1)
        items = self.item_ids.take(pa.array(self.items.values[places] - 1))
        return pa.table(
            {
                "user_id": self.users.take(pa.array(users)),
                "item_ids": pa.ListArray.from_arrays(lists, items),
                "event_times": pa.ListArray.from_arrays(lists, self.times.take(pa.array(places))),
                "event_timestamp": self.times.take(pa.array(ends - 1)),
            }
        )


def _parts(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with about `_EVENTS_AT_ONCE` events each, at least one user."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _EVENTS_AT_ONCE, "right")) - 1)
        yield first, last
        first = last


def _present(path: Path, *columns: str) -> list[str]:
    """Return those of these columns that a file has."""
    with _reading(path):
        names = pq.read_schema(path).names
    return [name for name in columns if name in names]


def _item_ids(folder: Path) -> pa.Array:
    return pa.array(load_item_ids(folder, read_json(folder / "split.json")["num_items"]), pa.string())


def _read(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    with _reading(path):
        yield from blocks(path, _USERS_AT_ONCE, columns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage again") from error
