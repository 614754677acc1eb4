"""What lies before the served histories: as they stood after each event, and items met earlier."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.data.dataset import load_item_ids, load_sequences, load_user_ids
from elcrec.data.sessions import is_earlier_session
from elcrec.errors import UserError

DISLIKED = "\0"
"""Marks, among the items that a user met, one that they dislike, where others may be recommended again."""

_EVENTS_AT_ONCE = 50_000


@dataclass(frozen=True, kw_only=True)
class HistoriesOverTime:
    """Each user's history as it stood after each of their events but the last.

    Iterating yields tables with the columns of histories.parquet, a row an event, users and their events in order; no
    user is in two tables. A row's `event_timestamp` is the time of its newest item, so a point-in-time join at any
    moment finds the history of that moment. May be iterated again.

    Attributes:
        folder: the sequences stage's output.
        most: items kept of each history, the most recent.
    """

    folder: Path
    most: int

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the tables.

        Raises:
            UserError: the folder is not the output of the sequences stage.
        """
        data = load_sequences(self.folder)
        item_ids = pa.array(load_item_ids(self.folder, data), pa.string())
        path = self.folder / "sequences.parquet"
        try:
            table = pq.read_table(path, columns=["user_id", "timestamps"]).combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"not readable ({error})", where=path) from error
        log = _Log(
            users=table["user_id"].combine_chunks().cast(pa.string()),
            items=data.sequences.values,
            times=table["timestamps"].combine_chunks().flatten(),
            item_ids=item_ids,
        )
        offsets = data.sequences.offsets
        for first, last in _parts(offsets):
            rows = log.histories(offsets[first : last + 1], first, self.most)
            yield rows.filter(pc.invert(is_earlier_session(rows["user_id"])))


@dataclass(frozen=True, kw_only=True)
class _Log:
    users: pa.Array
    items: npt.NDArray[np.integer[Any]]
    times: pa.Array
    item_ids: pa.Array

    def histories(self, offsets: npt.NDArray[np.int64], first: int, most: int) -> pa.Table:
        """Return the rows of neighbouring users.

        Args:
            offsets: where each of their sequences begins, and the end of the last.
            first: the first of them.
            most: items kept of each history.
        """
        lengths = np.diff(offsets)
        starts = np.repeat(offsets[:-1], lengths - 1)
        ends = np.concatenate([np.arange(start + 1, end) for start, end in pairwise(offsets)]).astype(np.int64)
        begins = np.maximum(starts, ends - most)
        counts = ends - begins
        places = np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
        lists = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
        users = np.repeat(np.arange(first, first + len(lengths)), lengths - 1)
        return pa.table(
            {
                "user_id": self.users.take(pa.array(users)),
                "item_ids": pa.ListArray.from_arrays(lists, self.item_ids.take(pa.array(self.items[places] - 1))),
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


def seen_items(folder: Path, histories: pa.Table, most: int) -> pa.ChunkedArray:
    """Return what each user met before her history in `histories`, and dislikes: raw ids, at most `most`, a list a row.

    Where repeats are allowed, what she met may be recommended, so DISLIKED marks what may not.

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
    kept = kept if data.disliked is None else kept.followed_by(data.disliked.items).tail(most)
    items = pa.array(load_item_ids(folder, data), pa.string()).take(pa.array(kept.values - 1))
    if data.disliked is not None and data.repeats:
        own = kept.lengths - np.minimum(data.disliked.items.lengths, kept.lengths)
        disliked = np.arange(len(kept.values)) - kept.offsets[kept.owners] >= own[kept.owners]
        marked = pc.binary_join_element_wise(pa.scalar(DISLIKED), items, pa.scalar(""))
        items = pc.if_else(pa.array(disliked), marked, items)
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(kept.offsets, pa.int32()), items)])
