"""Rules between scores and an answer: boosts, caps, diversity, calibration, exploration, availability.

Places are filled one after another with the candidate of the highest value that is not in a group with a full cap. The
value is

    (1 - d - c) relevance - d (highest cosine to an item above) + c (places that its intent lags behind its share),

where relevance is the score with its boost, scaled to 0 to 1 over the candidates. Without d and c only the order
matters.

Axes: `B` rows, `V` items, `C` candidates of a row, `G` groups of items (categories or intents), `D` width of vectors.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from elcrec.config import GroupRule, RulesConfig
from elcrec.errors import UserError
from elcrec.ranking.chances import Chances, chances_of
from elcrec.ranking.item_facts import NO_CATEGORY, ItemFacts
from elcrec.ranking.topk import Scores, top_k

logger = logging.getLogger(__name__)

Items = npt.NDArray[np.int64]
History = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]

_UNCAPPED = np.iinfo(np.int32).max
_WIDER = 4


@dataclass(frozen=True, kw_only=True)
class Picked:
    """An answer for one row, best first; shorter than wanted if no more items are left.

    Attributes:
        items: item indices.
        scores: the model's own scores, without boosts.
        propensities: chance with which each item was drawn for its place; 1 without exploration.
    """

    items: Items
    scores: npt.NDArray[np.floating]
    propensities: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """A partition of items into groups, and the largest number of items of each group in an answer."""

    group_V: npt.NDArray[np.int64]
    cap_G: npt.NDArray[np.int64]


class Rules:
    """The rules compiled for one catalogue; stateless."""

    def __init__(
        self,
        config: RulesConfig,
        facts: ItemFacts,
        vectors_VD: Floats,
        *,
        intent_V: npt.NDArray[np.integer] | None = None,
        index_of: Mapping[str, int] | None = None,
        new_V: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Compile the rules.

        Args:
            config: the rules.
            facts: the content of the items file.
            vectors_VD: item vectors, [V + 1, D].
            intent_V: intent of each item, [V + 1]; `None` for a model without intents.
            index_of: index of each raw id, for the items that name intents.
            new_V: which items were not trained, [V + 1]; `None` if there are none.

        Raises:
            UserError: a rule needs intents but there are none, or names an item that the catalogue lacks.
        """
        self._config, self.facts = config, facts
        self._boost_V = np.zeros(len(vectors_VD), np.float32)
        self._capped: list[_Groups] = []
        self._add(facts.category_V, _by_code(config.categories, facts.categories), config.category_cap, NO_CATEGORY)
        self._intent_V = None
        if config.needs_intents:
            if intent_V is None:
                fix = "train a model with intents, or remove the rules"
                raise UserError("rules by intent, but the model has no intents", where="evaluate.rules", fix=fix)
            self._intent_V = np.maximum(intent_V, 0).astype(np.int64)
            self._add(self._intent_V, _by_intent(config.intents, self._intent_V, index_of or {}), config.intent_cap)
        if new_V is not None and new_V.any():
            self._add(new_V, {1: config.new_items}, None, exempt=0)
        self._boosts, self._kind_V = bool(self._boost_V.any()), _kinds(self._capped, len(vectors_VD))
        self._scaled_VD = _scaled(vectors_VD, np.sqrt(config.diversity)) if config.diversity else None
        self._blocked, self._fresh = np.empty(0, np.int64), (np.inf, -np.inf)
        self.idle = not (self._boosts or self._capped or config.diversity or config.calibration or config.exploration)
        """Whether the rules only select the best scores among available items."""

    def block(self, scores_BV: Scores, now: datetime | None = None) -> None:
        """Set the scores of items that are unavailable at `now` to -inf, in place."""
        blocked = self.blocked(now)
        if len(blocked):
            scores_BV[:, blocked] = -np.inf

    def blocked(self, now: datetime | None = None) -> Items:
        """Return the items that are unavailable at `now`, ascending."""
        now = now or datetime.now(UTC)
        since, until = self._fresh
        if not since <= now.timestamp() < until:
            self._blocked = self.facts.unavailable(now)
            self._fresh = now.timestamp(), self.facts.next_expiry(now)
        return self._blocked

    def available(self, items_C: Items) -> npt.NDArray[np.bool_]:
        """Return which of the given items are available now, [C]."""
        blocked = self.blocked()
        if not len(blocked):
            return np.ones(len(items_C), np.bool_)
        places_C = np.minimum(np.searchsorted(blocked, items_C), len(blocked) - 1)
        available_C: npt.NDArray[np.bool_] = blocked[places_C] != items_C
        return available_C

    def pick_among(self, items_C: Items, score_C: Scores, k: int, history: History, rng: np.random.Generator) -> Picked:
        """Answer one row from only the given items (ascending, without padding); otherwise like `pick`."""
        ranked_1C = (score_C + self._boost_V[items_C])[None]
        found, places = self._look_on(ranked_1C, self.considered(k), k, history, items_C)
        items, propensities = self._explore(found, places, rng)
        return Picked(items=items, scores=score_C[np.searchsorted(items_C, items)], propensities=propensities)

    def considered(self, k: int) -> int:
        """Return the number of best items from which an answer of k is chosen."""
        return max(k, 1) if self.idle else max(self._config.candidates, k, 1)

    def pick(
        self, scores_BV: Scores, k: int | Sequence[int], histories: Sequence[History], rng: np.random.Generator
    ) -> list[Picked]:
        """Answer each row.

        Args:
            scores_BV: scores, -inf to exclude an item; not changed.
            k: largest number of items in an answer, for all rows or for each.
            histories: item indices of each row's history, for calibration.
            rng: generator for exploration.
        """
        picked = []
        for row, (found, places) in enumerate(self._chosen(scores_BV, k, histories)):
            items, propensities = self._explore(found, places, rng)
            picked.append(Picked(items=items, scores=scores_BV[row, items], propensities=propensities))
        return picked

    def chances(self, scores_BV: Scores, k: int | Sequence[int], histories: Sequence[History]) -> Iterator[Chances]:
        """Yield the chances from which `pick` draws each answer; the arguments are the same."""
        for found, places in self._chosen(scores_BV, k, histories):
            yield chances_of(found.items_C, places, self._kind_V[found.items_C], self._config.exploration)

    def _chosen(
        self, scores_BV: Scores, k: int | Sequence[int], histories: Sequence[History]
    ) -> Iterator[tuple["_Candidates", list[int]]]:
        """Yield each row's candidates and the positions of the chosen ones, before exploration."""
        wanted = [k] * len(scores_BV) if isinstance(k, int) else k
        ranked_BV = scores_BV + self._boost_V if self._boosts else scores_BV
        # A row's candidates do not depend on what the other rows want.
        sizes = [min(max(self._config.candidates, most, 1), ranked_BV.shape[1]) for most in wanted]
        values_BC, items_BC = top_k(ranked_BV, max(sizes, default=1))
        for row, (most, size, history) in enumerate(zip(wanted, sizes, histories, strict=True)):
            found = self._candidates(values_BC[row, :size], items_BC[row, :size])
            places = self._fill(found, most, history)
            if len(places) < most and len(found.items_C) == size < ranked_BV.shape[1]:
                found, places = self._look_on(ranked_BV[row : row + 1], _WIDER * size, most, history)
            yield found, places

    def _look_on(
        self, ranked_1V: Scores, size: int, k: int, history: History, items_V: Items | None = None
    ) -> tuple["_Candidates", list[int]]:
        """Choose among the best `size` items, and among more if caps have exhausted them.

        `items_V` are the items of the columns; `None` if each column is the item with its index.
        """
        while True:
            size = min(size, ranked_1V.shape[1])
            values_1C, columns_1C = top_k(ranked_1V, size)
            found = self._candidates(values_1C[0], columns_1C[0] if items_V is None else items_V[columns_1C[0]])
            places = self._fill(found, k, history)
            if len(places) == k or len(found.items_C) < size or size == ranked_1V.shape[1]:
                return found, places
            size *= _WIDER

    def _candidates(self, value_C: Scores, items_C: Items) -> "_Candidates":
        left = len(value_C) if np.isfinite(value_C[-1]) else int(np.isfinite(value_C).sum())
        items_C = items_C[:left]
        ways = [(groups.group_V[items_C], groups.cap_G) for groups in self._capped]
        return _Candidates(items_C=items_C, value_C=value_C[:left], capped=ways)

    def _fill(self, found: "_Candidates", k: int, history: History) -> list[int]:
        """Return the positions of the chosen candidates, best first."""
        diversity, calibration = self._config.diversity, self._config.calibration
        if not (diversity or calibration):
            return _in_order(found, k)
        base_C = (1 - diversity - calibration) * _between_0_and_1(found.value_C)
        likeness_CC = None
        if self._scaled_VD is not None:
            scaled_CD = self._scaled_VD[found.items_C]
            likeness_CC = scaled_CD @ scaled_CD.T
        step_CC = None
        if calibration and self._intent_V is not None and len(history):
            lag_C, step_CC = _shares(self._intent_V[history], self._intent_V[found.items_C], calibration)
            base_C += lag_C
        return _greedily(found, k, base_C, likeness_CC, step_CC)

    def _explore(
        self, found: "_Candidates", places: list[int], rng: np.random.Generator
    ) -> tuple[Items, npt.NDArray[np.float64]]:
        """Redraw the items of some places, each from the candidates under the same caps.

        So no draw can violate a cap, and all candidates of a place have the same chance.
        """
        share, items = self._config.exploration, found.items_C[places]
        if not share or not places:
            return items, np.ones(len(places))
        kind_C = self._kind_V[found.items_C]
        kinds, drawn = kind_C[places].tolist(), (rng.random(len(places)) < share).tolist()
        mine, candidates = Counter(kinds), Counter(kind_C.tolist())
        propensities = [1.0] * len(places)
        explored: dict[int, list[int]] = {}
        for row, kind in enumerate(kinds):
            others = candidates[kind] - mine[kind]
            if others < mine[kind]:
                continue
            propensities[row] = share / others if drawn[row] else 1 - share
            if drawn[row]:
                explored.setdefault(kind, []).append(row)
        for kind, rows in explored.items():
            alike_C = kind_C == kind
            alike_C[places] = False
            items[rows] = found.items_C[rng.permutation(alike_C.nonzero()[0])[: len(rows)]]
        return items, np.array(propensities)

    def _add(
        self,
        group_V: npt.NDArray[np.integer | np.bool_],
        rules: Mapping[int, GroupRule],
        general_cap: int | None,
        exempt: int | None = None,
    ) -> None:
        """Add the rules of one grouping of items; the group `exempt` has no cap."""
        for group, rule in rules.items():
            self._boost_V[group_V == group] += -np.inf if rule.cap == 0 else rule.boost
        caps = {group: rule.cap for group, rule in rules.items() if rule.cap}
        if not caps and general_cap is None:
            return
        cap_G = np.full(int(group_V.max()) + 1, _UNCAPPED if general_cap is None else general_cap)
        for group, cap in caps.items():
            cap_G[group] = cap
        if exempt is not None:
            cap_G[exempt] = _UNCAPPED
        self._capped.append(_Groups(group_V=group_V.astype(np.int64), cap_G=cap_G))


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    """The best items of a row, best first, with the group of each and the caps of groups, for each grouping."""

    items_C: Items
    value_C: Scores
    capped: list[tuple[Items, npt.NDArray[np.int64]]]


def _kinds(capped: Sequence[_Groups], size: int) -> Items:
    """Number items by the capped groups to which they belong, [V + 1]."""
    kind_V = np.zeros(size, np.int64)
    for groups in capped:
        free_V = groups.cap_G[groups.group_V] == _UNCAPPED
        kind_V = kind_V * (len(groups.cap_G) + 1) + np.where(free_V, 0, groups.group_V + 1)
    return kind_V


def _in_order(found: _Candidates, k: int) -> list[int]:
    """Return the first k positions whose groups' caps are not full."""
    if not found.capped:
        return list(range(min(k, len(found.items_C))))
    ways = [(group_C.tolist(), cap_G[group_C].tolist(), dict[int, int]()) for group_C, cap_G in found.capped]
    places: list[int] = []
    for place in range(len(found.items_C)):
        if len(places) == k:
            break
        if all(held.get(group[place], 0) < cap[place] for group, cap, held in ways):
            places.append(place)
            for group, _, held in ways:
                held[group[place]] = held.get(group[place], 0) + 1
    return places


def _greedily(
    found: _Candidates, k: int, base_C: Floats, likeness_CC: Floats | None, step_CC: Floats | None
) -> list[int]:
    """Fill places one after another with the best value.

    Args:
        found: the candidates.
        k: largest number of places.
        base_C: value of each candidate for the first place; changed.
        likeness_CC: amount that a chosen candidate subtracts from each candidate; only the largest counts.
        step_CC: amount that a chosen candidate adds to each candidate.
    """
    ways = [(group_C, group_C.tolist(), cap_G.tolist()) for group_C, cap_G in found.capped]
    nearest_C, value_C, places = None, base_C, list[int]()
    for _ in range(min(k, len(base_C))):
        best = int(value_C.argmax())
        if value_C[best] == -np.inf:
            break
        places.append(best)
        base_C[best] = -np.inf
        for group_C, groups, left in ways:
            group = groups[best]
            left[group] -= 1
            if not left[group]:
                base_C[group_C == group] = -np.inf
        if step_CC is not None:
            base_C += step_CC[best]
        if likeness_CC is not None:
            nearest_C = likeness_CC[best] if nearest_C is None else np.maximum(nearest_C, likeness_CC[best])
            value_C = base_C - nearest_C
    return places


def _shares(history_L: History, intent_C: Items, weight: float) -> tuple[Floats, Floats]:
    """Return how far each candidate's intent lags behind its share of the history, and how that changes.

    The first result is for the first place, [C]. A row of the second, [C, C], is what a chosen candidate adds.
    """
    size = 1 + max(int(history_L.max()), int(intent_C.max(initial=0)))
    share_K = np.bincount(history_L, minlength=size).astype(np.float32) * np.float32(weight / len(history_L))
    share_C: Floats = share_K[intent_C]
    return share_C, share_C - np.float32(weight) * (intent_C[:, None] == intent_C)


def _between_0_and_1(value_C: Floats) -> Floats:
    """Scale values, best first, to 0 to 1."""
    if not len(value_C):
        return value_C.copy()
    low, high = value_C[-1], value_C[0]
    laid: Floats = (value_C - low) / max(high - low, np.finfo(np.float32).tiny)
    return laid


def _scaled(vectors_VD: Floats, length: float) -> Floats:
    norms = np.linalg.norm(vectors_VD, axis=1, keepdims=True)
    scaled: Floats = vectors_VD * (np.float32(length) / np.maximum(norms, np.finfo(np.float32).tiny))
    # For a few candidates, a contiguous copy is made, whatever the layout of the vectors.
    return np.ascontiguousarray(scaled)


def _by_code(rules: Mapping[str, GroupRule], categories: Sequence[str]) -> dict[int, GroupRule]:
    codes = {name: code for code, name in enumerate(categories)}
    return {codes[name]: rule for name, rule in rules.items() if name in codes}


def _by_intent(rules: Mapping[str, GroupRule], intent_V: Items, index_of: Mapping[str, int]) -> dict[int, GroupRule]:
    named: dict[int, GroupRule] = {}
    for item_id, rule in rules.items():
        if item_id not in index_of:
            fix = "name an item that the model knows"
            raise UserError(f"intents: no item {item_id!r}", where="evaluate.rules", fix=fix)
        intent = int(intent_V[index_of[item_id]])
        if intent in named:
            logger.warning("evaluate.rules: %r has the intent of an item before it; both rules hold", item_id)
        named[intent] = _both(named[intent], rule) if intent in named else rule
    return named


def _both(one: GroupRule, other: GroupRule) -> GroupRule:
    """Return the rule that keeps to the smaller cap, and has the sum of the boosts."""
    caps = [rule.cap for rule in (one, other) if rule.cap is not None]
    return GroupRule(cap=min(caps, default=None), boost=one.boost + other.boost)
