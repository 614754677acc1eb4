"""Recommend: for one user as lines of text, from the feature store; for all users as one Parquet file."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import atomic_file
from elcrec.data.ids import normal_id
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.progress import track
from elcrec.serving.ports import PUSH_FIRST, FeatureStore, ModelRegistry, RegisteredModel
from elcrec.serving.recommender import Query, Recommendation, Recommender

CHAMPION = "champion"
"""Stands for the version that serves."""
_TYPICAL = 5
_SEED = 0
"""Seeds what rules explore: the same command gives the same file."""
_COLUMNS = ("user_id", "item_ids", "seen_items", "created", "event_timestamp")
"""What is read of histories; the last two say which of several rows of a user is the newest."""


def recommend(name: str, user: str, k: int, *, registry: ModelRegistry, features: FeatureStore) -> Iterator[str]:
    """Yield what a terminal shows: the user, her intent, and k items with their scores.

    A user that the store does not know gets the most popular items, marked as such.

    Raises:
        UserError: there is no champion, its bundle is damaged, or `k` is out of range.
    """
    champion = _champion(name, registry)
    recommender, k = _load(champion.bundle, k)
    (found,) = features.histories([normal_id(user)], service=recommender.manifest.feature_service)
    query = Query(history=found.item_ids, seen=found.seen, k=k) if found else Query(history=[], k=k)
    (answer,) = recommender.recommend([query])
    yield f"model      {name} version {champion.version}"
    yield f"user       {user}{'' if found else ' (unknown to the feature store)'}"
    yield f"history    {answer.known} items{_skipped(answer)}"
    yield f"intent     {_intent(recommender, answer.intent)}"
    yield f"source     {'popular items (fallback: no known history)' if answer.fallback else 'model'}"
    yield ""
    yield from _table(answer) if answer.item_ids else ["nothing is left to recommend: no item is new to this user"]


def _intent(recommender: Recommender, intent: int | None) -> str:
    if intent is None:
        return "none"
    typical = ", ".join(recommender.typical_items(intent)[:_TYPICAL])
    return f"{intent} (typical items: {typical})" if typical else f"{intent}"


def _skipped(answer: Recommendation) -> str:
    return f", {answer.skipped} unknown to the model" if answer.skipped else ""


def _table(answer: Recommendation) -> Iterator[str]:
    width = max(4, *(len(item) for item in answer.item_ids))
    yield f"{'rank':>4}  {'item':<{width}}  {'popularity' if answer.fallback else 'score':>10}"
    new = answer.new or [False] * len(answer.item_ids)
    for rank, (item, score, is_new) in enumerate(zip(answer.item_ids, answer.scores, new, strict=True), start=1):
        yield f"{rank:>4}  {item:<{width}}  {score:>10.4f}{'  new' if is_new else ''}"


def bundle_of(name: str, version: str, registry: ModelRegistry) -> Path:
    """Return the bundle folder of a version, or of the `champion`.

    Raises:
        UserError: there is no such version.
    """
    if version == CHAMPION:
        return _champion(name, registry).bundle
    found = registry.version(name, version)
    if found is None:
        raise UserError(f"model {name!r} has no version {version!r}", fix=f"name one that it has, or {CHAMPION}")
    return found.bundle


def first_users(histories: Path, number: int = 200) -> list[str]:
    """Return the first users of a file of histories, none where there is no such file."""
    if not histories.is_file():
        return []
    users: dict[str, None] = {}
    with pq.ParquetFile(histories) as file:
        for batch in file.iter_batches(columns=["user_id"]):
            users |= dict.fromkeys(map(str, batch["user_id"].to_pylist()))
            if len(users) >= number:
                break
    return list(users)[:number]


def read_users(path: Path) -> list[str]:
    """Return the ids in a file, one a line.

    Raises:
        UserError: it is not readable.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    return [user for line in lines if (user := normal_id(line))]


def recommend_all(
    bundle: Path, histories: Path, out: Path, k: int, wanted: Sequence[str] | None = None
) -> dict[str, Any]:
    """Write the k best items of every user: `user_id`, `item_ids`, `scores`, `intent` (-1: none), `source`.

    Where the bundle's rules explore, `propensities` says with what chance each item was drawn for its place. Where
    the bundle has new items, `new` says which these are.

    Rows are in the order of `histories`, or of the `wanted` users; a user without a known item gets the most popular
    ones (`popular`).

    Raises:
        UserError: the bundle is damaged, the histories are not readable, or `k` is out of range.
    """
    started = time.perf_counter()
    recommender, k = _load(bundle, k)
    wanted = None if wanted is None else [normal_id(user) for user in wanted]
    users, known, seen = _read_histories(histories, recommender, wanted)
    warm = np.flatnonzero(known.lengths)
    best = _fill_cold(recommender, known, seen, k)
    done = 0
    blocks = recommender.rank(known.take(warm), k, seen.take(warm))
    for ranked in track(blocks, total=recommender.num_blocks(len(warm)), label="blocks of users"):
        rows = warm[done : done + len(ranked.items)]
        for name, column in best.items():
            column[rows] = getattr(ranked, name)
        done += len(rows)
    source = np.where(known.lengths > 0, "model", "popular")
    table = _table_of(recommender, users, best).append_column("source", pa.array(source, pa.string()))
    with atomic_file(out) as scratch:
        pq.write_table(table, scratch)
    return {"users": len(users), "cold_users": len(users) - len(warm), "seconds": time.perf_counter() - started}


def _fill_cold(recommender: Recommender, known: Ragged, seen: Ragged, k: int) -> dict[str, np.ndarray]:
    """Return room for all answers, and in it those of users without a known item: popular ones that they have not seen.

    Where no item is left, the score is -inf.
    """
    users = len(known)
    best: dict[str, np.ndarray] = {
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


def _champion(name: str, registry: ModelRegistry) -> RegisteredModel:
    champion = registry.champion(name)
    if champion is None:
        raise UserError(f"no champion of model {name!r}", fix=PUSH_FIRST)
    return champion


def _load(bundle: Path, k: int) -> tuple[Recommender, int]:
    """Return the model and how many items it can show: all that there are where more are asked for."""
    if k < 1:
        raise UserError(f"k is {k}", fix="ask for 1 item or more")
    recommender = Recommender.load(bundle, seed=_SEED)
    return recommender, min(k, len(recommender.catalogue))


def _read_histories(
    path: Path, recommender: Recommender, wanted: Sequence[str] | None
) -> tuple[pa.ChunkedArray, Ragged, Ragged]:
    """Return users, their histories and what they saw before, as indices of the items that the model knows."""
    try:
        columns = [name for name in pq.read_schema(path).names if name in _COLUMNS]
        table = _newest(pq.read_table(path, columns=columns))
        users, lists = table["user_id"], {name: table[name] for name in ("item_ids", "seen_items") if name in columns}
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage, or push again") from error
    if wanted is not None:
        rows = pc.index_in(pa.chunked_array([pa.array(wanted, pa.string())]), value_set=users.cast(pa.string()))
        users = pa.chunked_array([pa.array(wanted, pa.string())])
        # An unknown user has none.
        lists = {name: pc.fill_null(found.take(rows), pa.scalar([], found.type)) for name, found in lists.items()}
    known = _known(lists["item_ids"], recommender)
    nothing = Ragged.of(np.empty(0, np.int32), np.zeros(len(known), np.int64))
    return users, known, _known(lists["seen_items"], recommender) if "seen_items" in lists else nothing


def _known(lists: pa.ChunkedArray, recommender: Recommender) -> Ragged:
    raw = lists.combine_chunks()
    offsets = np.asarray(raw.offsets, np.int64)
    values = raw.values.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.string())
    return recommender.catalogue.histories(values, offsets - offsets[0]).histories


def _newest(table: pa.Table) -> pa.Table:
    """Keep one row a user: a store's offline file also holds histories as they stood earlier."""
    users = table["user_id"].combine_chunks().dictionary_encode()
    if len(users.dictionary) == len(table):
        return table
    owners = users.indices.to_numpy()
    times = [table[name].cast(pa.int64()).to_numpy() for name in ("created", "event_timestamp")]
    order = np.lexsort((*times, owners))
    return table.take(order[np.diff(owners[order], append=-1) != 0])


def _table_of(recommender: Recommender, users: pa.ChunkedArray, best: dict[str, np.ndarray]) -> pa.Table:
    """Return lists of raw ids and scores; where fewer than k items are left, the list is shorter."""
    left = np.isfinite(best["scores"])
    offsets = pa.array(np.concatenate(([0], np.cumsum(left.sum(1)))).astype(np.int32))
    item_ids = recommender.catalogue.item_ids.take(pa.array(best["items"][left] - 1))
    columns = {"item_ids": item_ids, "scores": pa.array(best["scores"][left])}
    if recommender.rules.exploration:
        columns["propensities"] = pa.array(best["propensities"][left])
    if recommender.new_V is not None:
        columns["new"] = pa.array(recommender.new_V[best["items"][left]])
    lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()}
    return pa.table({"user_id": users, **lists, "intent": pa.array(best["intents"])})
