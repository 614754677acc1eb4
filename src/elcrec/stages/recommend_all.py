"""Recommend for all users: their best items as one Parquet file or several parts, in bounded memory."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import atomic_file, require_parquet_name
from elcrec.data.id_hashes import hash_ids, hash_ids_twice
from elcrec.data.ids import normal_id
from elcrec.data.parts import WHOLE, Part
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.progress import track
from elcrec.serving.recommender import Recommender
from elcrec.stages.recommend import load_recommender

_ROWS_AT_ONCE = 32_768
_TIMES = ("created", "event_timestamp")
"""Columns that show which row of a user is the newest: a store's file also holds earlier histories."""
_LISTS = ("item_ids", "seen_items")


def recommend_all(
    bundle: Path, histories: Path, out: Path, k: int, wanted: Sequence[str] | None = None, part: Part = WHOLE
) -> dict[str, Any]:
    """Write the k best items of every user: `user_id`, `item_ids`, `scores`, `intent` (-1: none), `source`.

    If the bundle's rules explore, `propensities` is the chance with which each item was drawn for its place. If the
    bundle has new items, `new` marks them.

    Rows are in the order of `histories`, or of the `wanted` users. A user without a known item gets the most popular
    items (`popular`). If a user has several rows, the newest counts. All parts together equal the whole, except for
    random draws of the rules. Memory holds a block of users at a time, and 40 bytes of every user if the file has
    times.

    Raises:
        UserError: the bundle is damaged, the histories are not readable, `k` is out of range, or `out` is not named
            .parquet.
    """
    require_parquet_name(out)
    started = time.perf_counter()
    recommender, k = load_recommender(bundle, k)
    wanted = None if wanted is None else [normal_id(user) for user in wanted]
    users = cold = 0
    total, blocks = _blocks(histories, wanted, part)
    with atomic_file(out) as scratch, pq.ParquetWriter(scratch, _schema(recommender)) as writer:
        for block in track(blocks, total=-(-total // _ROWS_AT_ONCE), label="blocks of users"):
            answers = _answer(recommender, block, k)
            writer.write_table(answers)
            users += len(answers)
            cold += pc.sum(pc.equal(answers["source"], "popular")).as_py() or 0
    return {"users": users, "cold_users": cold, "seconds": time.perf_counter() - started}


def _blocks(path: Path, wanted: Sequence[str] | None, part: Part) -> tuple[int, Iterator[pa.Table]]:
    """Return the number of requested users, and their histories, a block at a time."""
    with _reading(path):
        names = pq.read_schema(path).names
        if not {"user_id", "item_ids"} <= set(names):
            raise KeyError("no columns user_id and item_ids")
    times, lists = ([name for name in group if name in names] for group in (_TIMES, _LISTS))
    if wanted is not None:
        users = pa.array(wanted, pa.string())
        users = users.filter(pa.array(part.holds(hash_ids(users))))
        return len(users), _of_users(path, users, lists, times)
    if not times and part == WHOLE:
        with _reading(path):
            return pq.read_metadata(path).num_rows, _tables(path, ["user_id", *lists])
    rows = _newest_rows(path, times, part)
    return len(rows), _rows(path, rows, lists)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading into an error that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, KeyError) as error:
        fix = "run the sequences stage, or push again"
        raise UserError(f"not readable ({error})", where=path, fix=fix) from error


def _tables(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Read a file, a block of rows at a time, with ids as text."""
    with _reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            table = pa.Table.from_batches([batch])
            place = table.schema.get_field_index("user_id")
            yield table.set_column(place, "user_id", table["user_id"].cast(pa.string()))


def _newest_rows(path: Path, times: list[str], part: Part) -> npt.NDArray[np.int64]:
    """Return the newest row of each user of a part, in ascending order."""
    found: list[tuple[npt.NDArray[Any], ...]] = []
    first = 0
    for table in _tables(path, ["user_id", *times]):
        hashes = hash_ids_twice(table["user_id"])
        kept = np.flatnonzero(part.holds(hashes[0]))
        columns = [*hashes, *(table[name].cast(pa.int64()).to_numpy() for name in times)]
        found.append((*(column[kept] for column in columns), first + kept))
        first += len(table)
    if not found:
        return np.empty(0, np.int64)
    one, other, *moments, rows = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return rows[_newest(one, other, *moments)]


def _newest(*columns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the ascending positions of each user's newest row, given two hashes of the users and the times."""
    one, other, *moments = columns
    # By user, then by time, then by position; the last row of a user is the newest.
    order = np.lexsort((*moments, other, one))
    changes = (np.diff(one[order]) != 0) | (np.diff(other[order]) != 0)
    last = np.concatenate((changes, np.ones(min(1, len(order)), np.bool_)))
    return np.sort(order[last])


def _rows(path: Path, rows: npt.NDArray[np.int64], lists: list[str]) -> Iterator[pa.Table]:
    """Read some rows of a file, in ascending order, a block at a time."""
    first = 0
    for table in _tables(path, ["user_id", *lists]):
        start, stop = np.searchsorted(rows, (first, first + len(table)))
        if stop > start:
            yield table.take(rows[start:stop] - first)
        first += len(table)


def _of_users(path: Path, users: pa.Array, lists: list[str], times: list[str]) -> Iterator[pa.Table]:
    """Read the newest histories of the given users, in their order; that of an unknown user is empty."""
    parts = [
        table.filter(pc.is_in(table["user_id"], value_set=users))
        for table in _tables(path, ["user_id", *lists, *times])
    ]
    found = pa.concat_tables(parts)
    moments = (found[name].cast(pa.int64()).to_numpy() for name in times)
    found = found.take(_newest(*hash_ids_twice(found["user_id"]), *moments))
    places = pc.index_in(users, value_set=found["user_id"].combine_chunks())
    for start in range(0, len(users), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        taken = {name: pc.fill_null(found[name].take(places[rows]), pa.scalar([], found[name].type)) for name in lists}
        yield pa.table({"user_id": users[rows], **taken})


def _answer(recommender: Recommender, block: pa.Table, k: int) -> pa.Table:
    """Recommend to the users of a block."""
    known = _known(block["item_ids"].combine_chunks(), recommender)
    nothing = Ragged.of(np.empty(0, np.int32), np.zeros(len(known), np.int64))
    seen = nothing
    if "seen_items" in block.column_names:
        seen = _known(recommender.unwanted(block["seen_items"].combine_chunks()), recommender)
    warm = np.flatnonzero(known.lengths)
    best = _fill_cold(recommender, known, seen, k)
    done = 0
    for ranked in recommender.rank(known.take(warm), k, seen.take(warm)):
        rows = warm[done : done + len(ranked.items)]
        for name, column in best.items():
            column[rows] = getattr(ranked, name)
        done += len(rows)
    source = np.where(known.lengths > 0, "model", "popular")
    return _table_of(recommender, block["user_id"], best, pa.array(source, pa.string()))


def _fill_cold(recommender: Recommender, known: Ragged, seen: Ragged, k: int) -> dict[str, npt.NDArray[Any]]:
    """Return arrays for all answers, filled for users without a known item: popular items that they have not seen.

    The score is -inf if no item is left.
    """
    users = len(known)
    best: dict[str, npt.NDArray[Any]] = {
        "items": np.zeros((users, k), np.int64),
        "scores": np.full((users, k), -np.inf, np.float32),
        "propensities": np.ones((users, k)),
        "intents": np.full(users, -1, np.int32),
    }
    popular = recommender.popular(k)
    for row in np.flatnonzero(known.lengths == 0).tolist():
        own = bool(seen.lengths[row]) or recommender.rules.exploration > 0
        picked = recommender.popular(k, seen.row(row).tolist()) if own else popular
        left = slice(len(picked.items))
        for name in ("items", "scores", "propensities"):
            best[name][row, left] = getattr(picked, name)
    return best


def _known(raw: pa.ListArray, recommender: Recommender) -> Ragged:
    offsets = np.asarray(raw.offsets, np.int64)
    values = raw.values.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.string())
    return recommender.catalogue.histories(values, offsets - offsets[0]).histories


def _schema(recommender: Recommender) -> pa.Schema:
    nobody: dict[str, npt.NDArray[Any]] = {
        "items": np.zeros((0, 1), np.int64),
        "scores": np.zeros((0, 1), np.float32),
        "propensities": np.ones((0, 1)),
        "intents": np.zeros(0, np.int32),
    }
    return _table_of(recommender, pa.array([], pa.string()), nobody, pa.array([], pa.string())).schema


def _table_of(
    recommender: Recommender, users: pa.ChunkedArray, best: dict[str, npt.NDArray[Any]], source: pa.Array
) -> pa.Table:
    """Return lists of raw ids and scores; a list is shorter if fewer than k items are left."""
    left = np.isfinite(best["scores"])
    offsets = pa.array(np.concatenate(([0], np.cumsum(left.sum(1)))).astype(np.int32))
    item_ids = recommender.catalogue.item_ids.take(pa.array(best["items"][left] - 1))
    columns = {"item_ids": item_ids, "scores": pa.array(best["scores"][left])}
    if recommender.rules.exploration:
        columns["propensities"] = pa.array(best["propensities"][left])
    if recommender.new_V is not None:
        columns["new"] = pa.array(recommender.new_V[best["items"][left]])
    lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()}
    return pa.table({"user_id": users, **lists, "intent": pa.array(best["intents"]), "source": source})
