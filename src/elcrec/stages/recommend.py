"""Recommend for one user, as lines of text, from the feature store."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from elcrec.data.ids import normal_id
from elcrec.errors import UserError
from elcrec.serving.ports import CHAMPION, PUSH_FIRST, FeatureStore, ModelRegistry, RegisteredModel
from elcrec.serving.recommender import Query, Recommendation, Recommender

_TYPICAL = 5
_SEED = 0
"""Seed of the rules' exploration: the same command gives the same output."""


def recommend(name: str, user: str, k: int, *, registry: ModelRegistry, features: FeatureStore) -> Iterator[str]:
    """Yield lines for a terminal: the user, their intent, and k items with their scores.

    A user that the store does not know gets the most popular items, marked as such.

    Raises:
        UserError: there is no champion, its bundle is damaged, or `k` is out of range.
    """
    champion = _champion(name, registry)
    recommender, k = load_recommender(champion.bundle, k)
    (found,) = features.histories([normal_id(user)], service=recommender.manifest.feature_service)
    query = Query(history=found.item_ids, seen=found.seen, k=k) if found else Query(history=[], k=k)
    (answer,) = recommender.recommend([query])
    yield f"model      {name} version {champion.version}"
    yield f"user       {user}{'' if found else ' (unknown to the feature store)'}"
    yield f"history    {answer.known} items{_skipped(answer)}"
    yield f"intent     {_intent(recommender, answer.intent)}"
    yield f"source     {'popular items (fallback: no known history)' if answer.fallback else 'model'}"
    yield ""
    yield from _table(answer) if answer.item_ids else ["nothing is left to recommend: this user has seen every item"]


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
        raise UserError(f"model {name!r} has no version {version!r}", fix=f"name an existing version, or {CHAMPION}")
    return found.bundle


def first_users(histories: Path, number: int = 200) -> list[str]:
    """Return the first users of a file of histories, none if the file does not exist."""
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
    """Return the ids in a file, one per line.

    Raises:
        UserError: it is not readable.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    return [user for line in lines if (user := normal_id(line))]


def _champion(name: str, registry: ModelRegistry) -> RegisteredModel:
    champion = registry.champion(name)
    if champion is None:
        raise UserError(f"no champion of model {name!r}", fix=PUSH_FIRST)
    return champion


def load_recommender(bundle: Path, k: int) -> tuple[Recommender, int]:
    """Load a bundle to recommend k items; return it and k, reduced to the number of items that it can show.

    Raises:
        UserError: it is damaged, or `k` is below 1.
    """
    if k < 1:
        raise UserError(f"k is {k}", fix="ask for 1 item or more")
    recommender = Recommender.load(bundle, seed=_SEED)
    return recommender, min(k, len(recommender.catalogue))
