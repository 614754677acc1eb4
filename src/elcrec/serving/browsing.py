"""Answers that concern no user: items like an item, intents, and an intent's items."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from elcrec.config import LimitsConfig
from elcrec.ranking.topk import Scores, top_k
from elcrec.serving.loaded import Serving
from elcrec.serving.messages import (
    DEFAULT_K,
    IntentItemsResponse,
    IntentsResponse,
    IntentSummary,
    ModelAnswer,
    Refusal,
    ScoredItem,
    require_at_most,
)
from elcrec.serving.recommender import Recommender

_UNKNOWN, _INVALID = 404, 422
_DIGITS = 9
"""Most digits of a number in a URL."""


def read_k(query: Mapping[str, str], limits: LimitsConfig) -> int:
    """Return the parameter `k` of a URL.

    Raises:
        Refusal: it is not a whole number within the limits.
    """
    text = query.get("k", str(DEFAULT_K))
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text)):
        raise Refusal(_INVALID, "k must be one whole number from 1")
    require_at_most(int(text), limits.k, "k")
    return int(text)


def read_kind(query: Mapping[str, str]) -> Literal["next", "near"]:
    """Return the parameter `kind` of a URL.

    Raises:
        Refusal: it is another word.
    """
    match query.get("kind", "next"):
        case "next":
            return "next"
        case "near":
            return "near"
    raise Refusal(_INVALID, "kind must be next or near")


def require_item(recommender: Recommender, item_id: str) -> int:
    """Return an item's index.

    Raises:
        Refusal: the model does not know it.
    """
    if item_id not in recommender.catalogue:
        raise Refusal(_UNKNOWN, "the model knows no such item")
    return recommender.catalogue.index_of[item_id]


def near_items(recommender: Recommender, item_id: str, k: int) -> list[ScoredItem]:
    """Return the available items whose vectors have the largest cosine with that of an item."""
    index = require_item(recommender, item_id)
    cosines_V = recommender.unit_vectors_DV[:, index] @ recommender.unit_vectors_DV
    cosines_V[index] = -np.inf
    return _best(recommender, cosines_V, k)


def intents_of(serving: Serving) -> IntentsResponse:
    """Return every intent of a model."""
    recommender = serving.recommender
    own = recommender.item_intents
    sizes = [] if own is None else np.bincount(own[1:], minlength=recommender.num_intents).tolist()
    intents = [
        IntentSummary(
            index=index,
            name=recommender.intent_name(index),
            items=size,
            share=recommender.intent_share(index),
            typical_items=recommender.typical_items(index),
        )
        for index, size in enumerate(sizes)
    ]
    return IntentsResponse(intents=intents, model=model_answer(serving))


def items_of(serving: Serving, index: str, k: int) -> IntentItemsResponse:
    """Return the most popular items of an intent.

    Raises:
        Refusal: there is no such intent.
    """
    recommender = serving.recommender
    own = recommender.item_intents
    known = index.isascii() and index.isdigit() and len(index) <= _DIGITS
    if own is None or not known or int(index) >= recommender.num_intents:
        raise Refusal(_UNKNOWN, "the model has no such intent")
    shares_V = np.where(own == int(index), recommender.shares_V, -np.inf).astype(np.float32)
    return IntentItemsResponse(index=int(index), items=_best(recommender, shares_V, k), model=model_answer(serving))


def model_answer(serving: Serving) -> ModelAnswer:
    """Return the fields that name the model."""
    return ModelAnswer(name=serving.name, version=serving.version)


def _best(recommender: Recommender, scores_V: Scores, k: int) -> list[ScoredItem]:
    scores_1V = scores_V[None]
    recommender.block(scores_1V)
    values, items = (found[0].tolist() for found in top_k(scores_1V, min(k, len(recommender.catalogue))))
    ids = recommender.catalogue.ids
    left = [(item, value) for value, item in zip(values, items, strict=True) if np.isfinite(value)]
    facts = map(facts_of, recommender.describe([ids[item] for item, _ in left]))
    return [
        ScoredItem(item_id=ids[item], score=value, **known) for (item, value), known in zip(left, facts, strict=True)
    ]


def facts_of(row: dict[str, str]) -> dict[str, Any]:
    """Return the entries of the items file for an item, as fields of an answer's item."""
    known: dict[str, Any] = {name: row.pop(name) for name in ("title", "category") if name in row}
    return known | ({"details": row} if row else {})
