"""The fold: turn sorted events into one row of lists per user. Memory depends on row groups, not on the log.

Axes: `N` events of a row group, `U` its users, `V` all items.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.data.interactions import EVENT_ID
from elcrec.data.row_groups import write_row_group
from elcrec.data.selection import CODE, Kinds
from elcrec.data.sequences import Cuts
from elcrec.data.targets import NO_TARGET, Parts, positions, split
from elcrec.data.times import TIMESTAMP

GROUP_USERS = 1 << 16
GROUP_EVENTS = 1 << 20
"""A row group has as many whole users as both limits allow, and at least one."""

SEQUENCES = pa.schema(
    [
        ("user_id", pa.string()),
        ("items", pa.list_(pa.int32())),
        ("timestamps", pa.list_(TIMESTAMP)),
        ("train_end", pa.int32()),
        ("valid_index", pa.int32()),
        ("test_index", pa.int32()),
    ]
)
WEIGHTS = pa.field("weights", pa.list_(pa.float32()))
"""Column of sequences.parquet, if kinds of events have weights."""
DISLIKED = [
    pa.field("disliked", pa.list_(pa.int32())),
    pa.field("valid_disliked", pa.int32()),
    pa.field("test_disliked", pa.int32()),
]
"""Columns of sequences.parquet, if kinds of events express dislike: the items in time order, and how many of them a
user had disliked before each target."""
EVENT_IDS = pa.field("event_ids", pa.list_(pa.string()))
"""Column of histories.parquet, if events have ids."""
HISTORIES = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("event_times", pa.list_(TIMESTAMP)),
        ("event_timestamp", TIMESTAMP),
    ]
)

Ints = npt.NDArray[np.int64]


class Events(NamedTuple):
    """Sorted events: the row of their user's first event, item index from 1, microseconds, and id, [N] each.

    The ids are `None` if events have none, and so are the codes of their kinds.
    """

    first: Ints
    item: npt.NDArray[np.int32]
    micros: Ints
    event_id: pa.Array | None = None
    code: Ints | None = None

    def span(self, start: int, end: int) -> "Events":
        """Return a range of events."""
        event_id = None if self.event_id is None else self.event_id.slice(start, end - start)
        code = None if self.code is None else self.code[start:end]
        return Events(self.first[start:end], self.item[start:end], self.micros[start:end], event_id, code)

    def without_repeats(self) -> "Events":
        """Drop events that repeat the previous one: the same user, item and kind."""
        same = (self.first[1:] == self.first[:-1]) & (self.item[1:] == self.item[:-1])
        if self.code is not None:
            same &= self.code[1:] == self.code[:-1]
        kept = np.append([True], ~same)
        event_id = None if self.event_id is None else self.event_id.filter(pa.array(kept))
        code = None if self.code is None else self.code[kept]
        return Events(self.first[kept], self.item[kept], self.micros[kept], event_id, code)


class Choice(NamedTuple):
    """Options for folding events.

    Attributes:
        most: largest number of items in a history; the most recent are kept.
        cuts: cuts of a temporal split; `None` means leave-one-out.
        event_ids: whether events have ids.
        kinds: the meaning of their kinds.
        merge: whether an event that repeats the previous one is dropped.
    """

    most: int
    cuts: Cuts | None
    event_ids: bool
    kinds: Kinds = Kinds(None, None)
    merge: bool = False

    def schema(self, *, dislikes: bool) -> pa.Schema:
        """Return the columns of sequences.parquet."""
        return pa.schema([*SEQUENCES, *([] if self.kinds.weights is None else [WEIGHTS]), *(DISLIKED * dislikes)])


class Ties(NamedTuple):
    """Events of a user at the same time.

    Attributes:
        events: number of events with the same time as another.
        pairs: number of neighbours with the same time and different items.
        rising: number of those pairs whose second item has the higher id.
    """

    events: int = 0
    pairs: int = 0
    rising: int = 0


NO_TIES = Ties()


@dataclass
class Folded:
    """The counts of a fold.

    Attributes:
        training: number of training events of each item, [V].
        total: number of all events of each item, [V].
    """

    training: Ints
    total: Ints
    users: int = 0
    events: int = 0
    train_events: int = 0
    valid_targets: int = 0
    test_targets: int = 0
    ties: Ties = NO_TIES


def fold(
    events: Iterator[pa.RecordBatch],
    users: Iterator[pa.RecordBatch],
    items: pa.Table,
    folder: Path,
    choice: Choice,
    disliked: Iterator[pa.RecordBatch] | None = None,
) -> Folded:
    """Write `sequences.parquet` and `histories.parquet`.

    Args:
        events: `first`, `item_index`, `micros`, and `event_id` and `code` if events have them, by user and time.
        users: `first`, `user_id`, in the same order of users.
        items: `item_id` by index.
        folder: the folder to write to.
        choice: the options.
        disliked: `first`, `item_index` and `micros` of disliked items, in the same order; `None` if no kind expresses
            dislike.
    """
    columns = HISTORIES.append(EVENT_IDS) if choice.event_ids else HISTORIES
    item_ids = items["item_id"].cast(pa.large_string()).combine_chunks()
    ranks = _ranks(item_ids)
    counts, names = Folded(np.zeros(len(item_ids), np.int64), np.zeros(len(item_ids), np.int64)), _Names(users)
    noes, schema = _Dislikes(disliked), choice.schema(dislikes=disliked is not None)
    with (
        pq.ParquetWriter(folder / "sequences.parquet", schema, compression="zstd") as sequences,
        pq.ParquetWriter(folder / "histories.parquet", columns, compression="zstd") as histories,
    ):
        for whole in group_users(events):
            group = whole.without_repeats() if choice.merge else whole
            starts = _starts(group.first)
            user_ids, offsets = names.take(group.first[starts]), np.append(starts, len(group.first))
            parts = split(offsets, group.micros, choice.cuts, _wanted(group, choice.kinds))
            more = [*_weights(group, offsets, choice.kinds), *noes.columns(group, offsets, parts)]
            write_row_group(sequences, sequence_table(user_ids, offsets, group, parts, more))
            write_row_group(histories, history_table(user_ids, offsets, group, item_ids, choice.most))
            _count(counts, offsets, group, parts)
            counts.ties = Ties(*map(sum, zip(counts.ties, count_ties(group, ranks), strict=True)))
    return counts


def _wanted(events: Events, kinds: Kinds) -> npt.NDArray[np.bool_] | None:
    """Return which events may be targets; `None` if all may."""
    return None if kinds.targets is None or events.code is None else kinds.targets[events.code]


def _weights(events: Events, offsets: Ints, kinds: Kinds) -> list[tuple[pa.Field, pa.Array]]:
    if kinds.weights is None or events.code is None:
        return []
    weights = pa.array(kinds.weights[events.code])
    return [(WEIGHTS, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), weights))]


class _Dislikes:
    """The users' dislikes, read from their stream in step with the events."""

    def __init__(self, batches: Iterator[pa.RecordBatch] | None) -> None:
        self._batches = batches
        self._held = Events(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))

    def columns(self, events: Events, offsets: Ints, parts: Parts) -> list[tuple[pa.Field, pa.Array]]:
        """Return the columns of dislikes for these users, who must be the next ones."""
        if self._batches is None:
            return []
        users = events.first[offsets[:-1]]
        own = self._up_to(int(users[-1]))
        owner = np.searchsorted(users, own.first)
        before = [_count_before(own.micros, owner, _times_of(events.micros, offsets, part)) for part in parts[1:]]
        ends = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(users)))))
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(own.item, pa.int32()))
        return list(zip(DISLIKED, [lists, *(pa.array(count, pa.int32()) for count in before)], strict=True))

    def _up_to(self, last: int) -> Events:
        held = [self._held]
        while not len(held[-1].first) or held[-1].first[-1] <= last:
            batch = next(self._batches or iter(()), None)
            if batch is None:
                break
            held.append(_events(batch))
        every = _join(held)
        size = int(np.searchsorted(every.first, last, side="right"))
        self._held = every.span(size, len(every.first))
        return every.span(0, size)


def _times_of(micros: Ints, offsets: Ints, places: Ints) -> Ints:
    """Return the time of each user's target, [U]; the earliest possible time if there is none."""
    return np.where(places == NO_TARGET, np.iinfo(np.int64).min, micros[offsets[:-1] + np.maximum(places, 0)])


def _count_before(micros: Ints, owner: Ints, times: Ints) -> Ints:
    """Return how many of each owner's events are before the owner's time in `times`, [U]."""
    return np.bincount(owner[micros < times[owner]], minlength=len(times))


def group_users(batches: Iterator[pa.RecordBatch]) -> Iterator[Events]:
    """Yield the events of whole users, one row group at a time, independently of the batches."""
    held: list[Events] = []
    size, enough = 0, GROUP_EVENTS
    for batch in batches:
        held.append(_events(batch))
        size += batch.num_rows
        if size > enough:
            rest = yield from _cut(_join(held), final=False)
            # The events of a long user are joined again only when their number has doubled.
            held, size = [rest], len(rest.first)
            enough = max(GROUP_EVENTS, 2 * size)
    if size:
        yield from _cut(_join(held), final=True)


def _events(batch: pa.RecordBatch) -> Events:
    first, item, micros = (np.asarray(batch.column(name)) for name in ("first", "item_index", "micros"))
    event_id = batch.column(EVENT_ID).cast(pa.large_string()) if EVENT_ID in batch.schema.names else None
    code = np.asarray(batch.column(CODE)) if CODE in batch.schema.names else None
    return Events(first, item, micros, event_id, code)


def _join(held: list[Events]) -> Events:
    first, item, micros, event_ids, codes = zip(*held, strict=True)
    joined = None if event_ids[0] is None else pa.concat_arrays(event_ids)
    code = None if codes[0] is None else np.concatenate(codes)
    return Events(np.concatenate(first), np.concatenate(item), np.concatenate(micros), joined, code)


def _cut(events: Events, *, final: bool) -> Generator[Events, None, Events]:
    """Yield full row groups; return the remaining events, none if these are the `final` ones."""
    starts, place, begin = _starts(events.first), 0, 0
    ends = np.append(starts[1:], len(events.first)) if final else starts[1:]
    while place < len(ends):
        most = int(np.searchsorted(ends, begin + GROUP_EVENTS, side="right"))
        stop = min(place + GROUP_USERS, max(place + 1, most))
        if stop == len(ends) and stop < place + GROUP_USERS and not final:
            break
        yield events.span(begin, int(ends[stop - 1]))
        place, begin = stop, int(ends[stop - 1])
    return events.span(begin, len(events.first))


def _starts(first: Ints) -> Ints:
    """Return the index of each user's first event, [U]."""
    return np.flatnonzero(np.diff(first, prepend=-1))


class _Names:
    """The users' ids, read from their stream in step with the events."""

    def __init__(self, users: Iterator[pa.RecordBatch]) -> None:
        self._users = users
        self._held = [pa.table({"first": pa.array([], pa.int64()), "user_id": pa.array([], pa.string())})]

    def take(self, first: Ints) -> pa.Array:
        """Return the ids of these users, who must be the next ones."""
        while sum(map(len, self._held)) < len(first):
            self._held.append(pa.Table.from_batches([next(self._users)]))
        table = pa.concat_tables(self._held)
        found, self._held = table.slice(0, len(first)), [table.slice(len(first))]
        if not np.array_equal(np.asarray(found["first"]), first):
            raise RuntimeError("users and events are not in the same order")
        return pa.concat_arrays(found["user_id"].chunks)


def sequence_table(
    user_ids: pa.Array,
    offsets: Ints,
    events: Events,
    parts: Parts,
    more: Sequence[tuple[pa.Field, pa.Array]] = (),
) -> pa.Table:
    """Return rows of sequences.parquet; `more` are further columns."""
    ends = pa.array(offsets, pa.int32())
    columns = [
        user_ids,
        pa.ListArray.from_arrays(ends, pa.array(events.item, pa.int32())),
        pa.ListArray.from_arrays(ends, pa.array(events.micros).cast(TIMESTAMP)),
        *(pa.array(part, pa.int32()) for part in parts),
    ]
    fields, values = ([field for field, _ in more], [column for _, column in more])
    return pa.Table.from_arrays([*columns, *values], schema=pa.schema([*SEQUENCES, *fields]))


def history_table(user_ids: pa.Array, offsets: Ints, events: Events, item_ids: pa.Array, most: int) -> pa.Table:
    """Return rows of histories.parquet: the `most` recent raw items of each user, and `event_ids` if there are any."""
    lengths = np.diff(offsets)
    recent = np.flatnonzero(positions(offsets) >= np.repeat(lengths - most, lengths))
    ends = pa.array(np.concatenate(([0], np.cumsum(np.minimum(lengths, most)))), pa.int32())
    times = pa.array(events.micros).cast(TIMESTAMP)
    columns = [
        user_ids,
        pa.ListArray.from_arrays(ends, item_ids.take(pa.array(events.item[recent] - 1)).cast(pa.string())),
        pa.ListArray.from_arrays(ends, times.take(pa.array(recent))),
        times.take(pa.array(offsets[1:] - 1)),
    ]
    table = pa.Table.from_arrays(columns, schema=HISTORIES)
    if events.event_id is None:
        return table
    event_ids = events.event_id.take(pa.array(recent)).cast(pa.string())
    return table.append_column(EVENT_IDS, pa.ListArray.from_arrays(ends, event_ids))


def item_table(items: pa.Table, training: Ints, total: Ints) -> pa.Table:
    """Return the table items.parquet; `count` covers only training events."""
    return pa.table(
        {
            "item_index": items["item_index"],
            "item_id": items["item_id"],
            "count": pa.array(training),
            "total": pa.array(total),
            "event_timestamp": items["newest"].cast(TIMESTAMP),
        }
    )


def count_ties(events: Events, ranks: Ints) -> Ties:
    """Count the ties of whole users; `ranks` are the items' positions in the order of their ids, [V]."""
    tied = (np.diff(events.first) == 0) & (np.diff(events.micros) == 0)
    places = np.flatnonzero(tied)
    if not len(places):
        return NO_TIES
    some = np.zeros(len(events.first), bool)
    some[places] = some[places + 1] = True
    steps = ranks[events.item[places + 1] - 1] - ranks[events.item[places] - 1]
    return Ties(int(some.sum()), int((steps != 0).sum()), int((steps > 0).sum()))


def _ranks(item_ids: pa.Array) -> Ints:
    """Return the positions of ids in sorted order, [V]; numeric ids are sorted as numbers."""
    numeric = len(item_ids) > 0 and pc.all(pc.match_substring_regex(item_ids, "^[0-9]{1,18}$")).as_py()
    order = pc.sort_indices(item_ids.cast(pa.int64()) if numeric else item_ids).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _count(counts: Folded, offsets: Ints, events: Events, parts: Parts) -> None:
    training = positions(offsets) < np.repeat(parts.train_end, np.diff(offsets))
    counts.training += np.bincount(events.item[training] - 1, minlength=len(counts.training))
    counts.total += np.bincount(events.item - 1, minlength=len(counts.total))
    counts.users += len(offsets) - 1
    counts.events += len(events.first)
    counts.train_events += int(parts.train_end.sum())
    counts.valid_targets += int((parts.valid != NO_TARGET).sum())
    counts.test_targets += int((parts.test != NO_TARGET).sum())
