"""The answers of the server's plain JSON routes."""

from msgspec import UNSET

from elcrec.serving import browsing, messages
from elcrec.serving.engine import Answer
from elcrec.serving.reasons import Reason
from elcrec.serving.recommender import Recommendation, Recommender


def response_of(answer: Answer, *, with_history: bool) -> messages.RecommendResponse:
    """Return an answer in its JSON form; `with_history` includes the history."""
    found, recommender = answer.recommendation, answer.serving.recommender
    intent = found.intent
    return messages.RecommendResponse(
        answer_id=answer.answer_id,
        items=scored_items(found, recommender),
        source="popular" if found.fallback else "model",
        intent=None
        if intent is None
        else messages.IntentAnswer(
            index=intent, name=recommender.intent_name(intent), typical_items=recommender.typical_items(intent)
        ),
        history=messages.HistoryAnswer(
            source=answer.source,
            known=found.known,
            skipped=found.skipped,
            stale=answer.stale,
            item_ids=list(answer.history) if with_history else UNSET,
        ),
        store_available=answer.store_available,
        model=browsing.model_answer(answer.serving),
        arm=UNSET if answer.arm is None else answer.arm,
        titles=_titles(answer, recommender) if with_history and recommender.has_titles else UNSET,
    )


def _titles(answer: Answer, recommender: Recommender) -> dict[str, str]:
    intent = answer.recommendation.intent
    every = [*answer.history, *(recommender.typical_items(intent) if intent is not None else [])]
    known = [item_id for item_id in dict.fromkeys(every) if item_id in recommender.catalogue]
    rows = zip(known, recommender.describe(known), strict=True)
    return {item_id: row["title"] for item_id, row in rows if "title" in row}


def scored_items(found: Recommendation, recommender: Recommender) -> list[messages.ScoredItem]:
    """Return the items of an answer with their further fields."""
    facts = [browsing.facts_of(row) for row in recommender.describe(found.item_ids)]
    if found.propensities is None and found.reasons is None:
        every = zip(found.item_ids, found.scores, facts, strict=True)
        return [messages.ScoredItem(item_id=item_id, score=score, **known) for item_id, score, known in every]
    return [
        messages.ScoredItem(
            item_id=item_id,
            score=found.scores[place],
            **facts[place],
            propensity=UNSET if found.propensities is None else found.propensities[place],
            because=UNSET if found.reasons is None else [_because(reason) for reason in found.reasons[place]],
            new=found.reasons is not None and found.new is not None and found.new[place],
        )
        for place, item_id in enumerate(found.item_ids)
    ]


def _because(reason: Reason) -> messages.ReasonAnswer:
    return messages.ReasonAnswer(item_id=reason.item_id, contribution=reason.contribution)
