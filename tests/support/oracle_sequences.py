"""The oracle of the stage sequences: the same result on whole columns in memory, with NumPy.

Axes: `N` interactions, `U` users, `V` items.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.config import SequencesConfig
from elcrec.data.interactions import EVENT_ID
from elcrec.data.times import TIMESTAMP

Ints = npt.NDArray[np.int64]
NO_TARGET = -1


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Interactions with ids as numbers.

    Attributes:
        user, item: index into the ids, [N].
        time: microseconds since 1970, [N].
        user_ids, item_ids: raw ids, in the order of their first appearance in the log, [U] and [V].
        event_ids: ids of the events, null where there is none, [N]; `None` where the log has no such column.
    """

    user: Ints
    item: Ints
    time: Ints
    user_ids: pa.Array
    item_ids: pa.Array
    event_ids: pa.Array | None = None

    @classmethod
    def of(cls, interactions: pa.Table) -> Self:
        """Number the ids of `user_id`, `item_id`, `timestamp`; take `event_id` where it is there."""
        user, user_ids = _encode(interactions["user_id"])
        item, item_ids = _encode(interactions["item_id"])
        time = interactions["timestamp"].cast(pa.int64()).to_numpy()
        events = interactions[EVENT_ID].combine_chunks() if EVENT_ID in interactions.column_names else None
        return cls(user=user, item=item, time=time, user_ids=user_ids, item_ids=item_ids, event_ids=events)

    def keep(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Keep some interactions and number the ids that remain, again by first appearance."""
        user, users = _renumber(self.user[mask])
        item, items = _renumber(self.item[mask])
        return type(self)(
            user=user,
            item=item,
            time=self.time[mask],
            user_ids=self.user_ids.take(users),
            item_ids=self.item_ids.take(items),
            event_ids=None if self.event_ids is None else self.event_ids.filter(pa.array(mask)),
        )

    def in_order(self) -> Self:
        """Sort by user, then time; equal times keep the order of the log."""
        order = np.lexsort((self.time, self.user))
        return type(self)(
            user=self.user[order],
            item=self.item[order],
            time=self.time[order],
            user_ids=self.user_ids,
            item_ids=self.item_ids,
            event_ids=None if self.event_ids is None else self.event_ids.take(pa.array(order)),
        )

    @property
    def offsets(self) -> Ints:
        """Where each user begins, and the end, once in order, [U + 1]."""
        counts = np.bincount(self.user, minlength=len(self.user_ids))
        return np.concatenate(([0], np.cumsum(counts)))


def _encode(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    encoded = pc.dictionary_encode(column).combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _renumber(codes: Ints) -> tuple[Ints, pa.Array]:
    encoded = pc.dictionary_encode(pa.array(codes))
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def k_core(user: Ints, item: Ints, k: int) -> npt.NDArray[np.bool_]:
    """Return which interactions remain once every user and item left has `k` or more, [N]."""
    kept = np.arange(len(user))
    while len(kept):
        enough = (np.bincount(user[kept])[user[kept]] >= k) & (np.bincount(item[kept])[item[kept]] >= k)
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(user), bool)
    mask[kept] = True
    return mask


@dataclass(frozen=True, kw_only=True)
class SplitIndex:
    """The split of each sequence.

    Attributes:
        train_end: the first `train_end` items are for training, [U].
        valid, test: position of the target, NO_TARGET if there is none, [U].
        valid_cut, test_cut: instants in microseconds; `None` for leave-one-out.
    """

    train_end: Ints
    valid: Ints
    test: Ints
    valid_cut: int | None = None
    test_cut: int | None = None


def leave_one_out(lengths: Ints) -> SplitIndex:
    """The last item is the test target, the one before it the validation target.

    Fewer than 3 items are all for training: a target needs a history that was trained on.
    """
    long = lengths >= 3
    return SplitIndex(
        train_end=np.where(long, lengths - 2, lengths),
        valid=np.where(long, lengths - 2, NO_TARGET),
        test=np.where(long, lengths - 1, NO_TARGET),
    )


def temporal(codes: Codes, valid_share: float, test_share: float) -> SplitIndex:
    """Cut all histories at two instants; `codes` must be in order.

    The cuts are the times at which the last `valid_share + test_share` and `test_share` of all interactions
    begin. Training lies strictly before the first cut. A user's target is her first item from a cut on, if
    it has a history; a validation target lies before the second cut.
    """
    ordered = np.sort(codes.time)
    size = len(ordered)
    valid_cut = int(ordered[min(size - 1, int(size * (1 - valid_share - test_share)))])
    test_cut = int(ordered[min(size - 1, int(size * (1 - test_share)))])
    users, lengths = len(codes.user_ids), np.diff(codes.offsets)
    before_valid = np.bincount(codes.user[codes.time < valid_cut], minlength=users)
    before_test = np.bincount(codes.user[codes.time < test_cut], minlength=users)
    return SplitIndex(
        train_end=before_valid,
        valid=np.where((before_valid > 0) & (before_valid < before_test), before_valid, NO_TARGET),
        test=np.where((before_test > 0) & (before_test < lengths), before_test, NO_TARGET),
        valid_cut=valid_cut,
        test_cut=test_cut,
    )


def sequence_table(codes: Codes, split: SplitIndex) -> pa.Table:
    """Return `sequences.parquet`; item indices begin at 1, as 0 is padding."""
    offsets = pa.array(codes.offsets, pa.int32())
    return pa.table(
        {
            "user_id": codes.user_ids,
            "items": pa.ListArray.from_arrays(offsets, pa.array(codes.item + 1, pa.int32())),
            "timestamps": pa.ListArray.from_arrays(offsets, _timestamps(codes.time)),
            "train_end": pa.array(split.train_end, pa.int32()),
            "valid_index": pa.array(split.valid, pa.int32()),
            "test_index": pa.array(split.test, pa.int32()),
        }
    )


def history_table(codes: Codes, most: int) -> pa.Table:
    """Return `histories.parquet`: the `most` recent items of each user, raw; `event_ids` where the log has ids."""
    lengths = np.diff(codes.offsets)
    position = np.arange(len(codes.user)) - np.repeat(codes.offsets[:-1], lengths)
    recent = np.flatnonzero(position >= np.repeat(lengths - most, lengths))
    offsets = pa.array(np.concatenate(([0], np.cumsum(np.minimum(lengths, most)))), pa.int32())
    columns = {
        "user_id": codes.user_ids,
        "item_ids": pa.ListArray.from_arrays(offsets, codes.item_ids.take(pa.array(codes.item[recent]))),
        "event_times": pa.ListArray.from_arrays(offsets, _timestamps(codes.time[recent])),
        "event_timestamp": _timestamps(codes.time[codes.offsets[1:] - 1]),
    }
    if codes.event_ids is not None:
        columns["event_ids"] = pa.ListArray.from_arrays(offsets, codes.event_ids.take(pa.array(recent)))
    return pa.table(columns)


def item_table(codes: Codes, split: SplitIndex) -> pa.Table:
    """Return `items.parquet`; `count` knows nothing of what comes after training."""
    size = len(codes.item_ids)
    newest = np.full(size, np.iinfo(np.int64).min)
    np.maximum.at(newest, codes.item, codes.time)
    return pa.table(
        {
            "item_index": pa.array(np.arange(1, size + 1), pa.int32()),
            "item_id": codes.item_ids,
            "count": np.bincount(codes.item[in_training(codes, split)], minlength=size),
            "total": np.bincount(codes.item, minlength=size),
            "event_timestamp": _timestamps(newest),
        }
    )


def in_training(codes: Codes, split: SplitIndex) -> npt.NDArray[np.bool_]:
    """Say for each interaction whether it is for training, [N]."""
    lengths = np.diff(codes.offsets)
    position = np.arange(len(codes.user)) - np.repeat(codes.offsets[:-1], lengths)
    training: npt.NDArray[np.bool_] = position < np.repeat(split.train_end, lengths)
    return training


def _timestamps(microseconds: Ints) -> pa.Array:
    return pa.array(microseconds, pa.int64()).cast(TIMESTAMP)


def write_sequences(config: SequencesConfig, interactions: pa.Table, folder: Path, *, users: int, events: int) -> None:
    """Write the three files; a row group has at most so many users and events, but one user at least."""
    codes = Codes.of(interactions)
    if config.k_core > 1:
        codes = codes.keep(k_core(codes.user, codes.item, config.k_core))
    codes = codes.in_order()
    lengths = np.diff(codes.offsets)
    by_time = config.split == "temporal"
    split = temporal(codes, config.valid_share, config.test_share) if by_time else leave_one_out(lengths)
    groups = row_groups(lengths.tolist(), users, events)
    folder.mkdir()
    _write(folder / "sequences.parquet", sequence_table(codes, split), groups)
    _write(folder / "histories.parquet", history_table(codes, config.history), groups)
    _write(folder / "items.parquet", item_table(codes, split), [len(codes.item_ids)])


def row_groups(lengths: list[int], users: int, events: int) -> list[int]:
    """Return how many users each row group has."""
    sizes, filled = [0], 0
    for length in lengths:
        if sizes[-1] and (sizes[-1] == users or filled + length > events):
            sizes.append(0)
            filled = 0
        sizes[-1] += 1
        filled += length
    return sizes


def _write(path: Path, table: pa.Table, groups: list[int]) -> None:
    starts = np.cumsum([0, *groups])
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for start, size in zip(starts, groups, strict=False):
            writer.write_table(table.slice(start, size).combine_chunks())
