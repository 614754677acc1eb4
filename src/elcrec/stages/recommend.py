"""Recommend: one user's history from the feature store, ranked by the champion, as lines of text."""

from collections.abc import Iterator

from elcrec.errors import UserError
from elcrec.serving.ports import FeatureStore, ModelRegistry
from elcrec.serving.recommender import Query, Recommendation, Recommender

_TYPICAL = 5


def recommend(name: str, user: str, k: int, *, registry: ModelRegistry, features: FeatureStore) -> Iterator[str]:
    """Yield what a terminal shows: the user, her intent, and k items with their scores.

    A user that the store does not know gets the most popular items, marked as such.

    Raises:
        UserError: there is no champion, its bundle is damaged, or `k` is out of range.
    """
    champion = registry.champion(name)
    if champion is None:
        raise UserError(f"no champion of model {name!r}", fix="run `elcrec push` first")
    recommender = Recommender.load(champion.bundle)
    if not 1 <= k <= len(recommender.catalogue):
        raise UserError(f"k is {k}", fix=f"ask for 1 to {len(recommender.catalogue)} items")
    (found,) = features.users([user], service=recommender.manifest.feature_service)
    (answer,) = recommender.recommend([Query(history=found.item_ids if found else [], k=k)])
    yield f"model      {name} version {champion.version}"
    yield f"user       {user}{'' if found else ' (unknown to the feature store)'}"
    yield f"history    {answer.known} items{_skipped(answer)}"
    yield f"intent     {_intent(recommender, answer.intent)}"
    yield f"source     {'popular items (fallback: no known history)' if answer.fallback else 'model'}"
    yield ""
    yield from _table(answer)


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
    for rank, (item, score) in enumerate(zip(answer.item_ids, answer.scores, strict=True), start=1):
        yield f"{rank:>4}  {item:<{width}}  {score:>10.4f}"
