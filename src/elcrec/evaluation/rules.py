"""The cost of rules: the same users are answered without rules, with each rule alone, and with all rules.

Axes: `N` test users, `V` items, `D` hidden size, `K` places of an answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elcrec.config import EvaluateConfig, GroupRule, RulesConfig
from elcrec.data.dataset import PADDING, EvaluationSet
from elcrec.evaluation.bootstrap import Bootstrap, bootstrap
from elcrec.evaluation.popularity import exposure
from elcrec.evaluation.predictions import TOP_K
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.item_facts import ItemFacts
from elcrec.ranking.items import item_intents
from elcrec.ranking.rules import Rules

_BLOCK = 256
NONE, ALL = "no rules", "all rules"
Lists = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RuleFindings:
    """Answers with and without rules.

    Attributes:
        resampled: metrics of each ruling, including `NONE` and `ALL`, paired by user.
        rows: one per ruling, that of all rules last: `rule`, `hr@20`, `ndcg@20`, the difference to no rules with its
            interval, and properties of the answers.
    """

    resampled: Bootstrap
    rows: list[dict[str, Any]]

    def numbers(self) -> dict[str, float]:
        """Return the numbers for metrics.json, from all rules together."""
        named = {"hr@20": "rules_hr@20", "ndcg@20": "rules_ndcg@20", "coverage": f"rules_coverage@{TOP_K}"}
        row = self.rows[-1]
        difference = {f"rules_delta_ndcg@20{end}": row[f"delta_ndcg@20{end}"] for end in ("", "_low", "_high")}
        return {name: row[column] for column, name in named.items()} | difference


def measure_rules(
    config: EvaluateConfig,
    model: SequenceModel,
    test: EvaluationSet,
    counts: npt.NDArray[np.int64],
    facts: ItemFacts,
    item_ids: list[str],
    now: datetime,
) -> RuleFindings:
    """Answer every test user with each ruling.

    Args:
        config: the section `evaluate`.
        model: the model, which stays on its device.
        test: the evaluation set of the test split, N users.
        counts: training count of each item, [V + 1].
        facts: the content of the items file.
        item_ids: raw ids of items 1 to V.
        now: the moment for availability.

    Raises:
        UserError: a rule names an unknown item, or needs intents that the model lacks.
    """
    vectors_VD = model.item_vectors().cpu().numpy()
    intents = item_intents(model)
    index_of = {item_id: index for index, item_id in enumerate(item_ids, start=1)}
    users_ND = model.encode(test.histories, intents=False).vectors.cpu().numpy()
    add, lists = model.adder(test.histories), {}
    for name, config_alone, known in _rulings(config.rules, facts):
        rules = Rules(config_alone, known, vectors_VD, intent_V=intents, index_of=index_of)
        lists[name] = answer_lists(rules, users_ND, test, vectors_VD, add, now=now, seed=config.seed)
    ranks = {name: ranks_in(shown, test, len(item_ids)) for name, shown in lists.items()}
    resampled = bootstrap(ranks, samples=config.bootstrap, confidence=config.confidence, seed=config.seed)
    rows = [
        {"rule": name, **_cost(resampled, name), **_look(shown, counts, vectors_VD, intents, facts)}
        for name, shown in lists.items()
    ]
    return RuleFindings(resampled=resampled, rows=rows)


def _rulings(rules: RulesConfig, facts: ItemFacts) -> Iterator[tuple[str, RulesConfig, ItemFacts]]:
    """Yield no rules, each kind of active rule alone, and all rules."""
    at_hand = facts.always_available()
    yield NONE, RulesConfig(), at_hand
    if not facts.available_V.all() or len(np.unique(facts.until_V)) > 1:
        yield "availability", RulesConfig(), facts
    boosts, caps = _only(rules, "boost"), _only(rules, "cap")
    if boosts != RulesConfig():
        yield "boosts", boosts, at_hand
    caps = msgspec.structs.replace(caps, category_cap=rules.category_cap, intent_cap=rules.intent_cap)
    if caps != RulesConfig():
        yield "caps", caps, at_hand
    for name in ("diversity", "calibration", "exploration"):
        if getattr(rules, name):
            alone = RulesConfig(candidates=rules.candidates, **{name: getattr(rules, name)})
            yield name, alone, at_hand
    yield ALL, rules, facts


def _only(rules: RulesConfig, field: str) -> RulesConfig:
    """Keep only the caps, or only the boosts, of groups."""
    nothing = getattr(GroupRule(), field)
    categories, intents = (
        {
            name: GroupRule(**{field: getattr(rule, field)})
            for name, rule in groups.items()
            if getattr(rule, field) != nothing
        }
        for groups in (rules.categories, rules.intents)
    )
    return RulesConfig(categories=categories, intents=intents)


def answer_lists(
    rules: Rules,
    users_ND: npt.NDArray[np.float32],
    test: EvaluationSet,
    vectors_VD: npt.NDArray[np.float32],
    add: Callable[[Tensor, slice], object],
    *,
    now: datetime,
    seed: int,
) -> Lists:
    """Return each user's answer, 0 if no item is left, [N, K]; `add` as for `rank_targets`."""
    rng, items_DV = np.random.default_rng(seed), np.ascontiguousarray(vectors_VD.T)
    lists = np.zeros((len(users_ND), TOP_K), np.int64)
    for start in range(0, len(users_ND), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(users_ND)))
        histories, excluded = test.histories.part(rows), test.excluded.part(rows)
        scores_BV = users_ND[rows] @ items_DV
        add(torch.from_numpy(scores_BV), rows)
        scores_BV[:, PADDING] = -np.inf
        scores_BV[excluded.owners, excluded.values] = -np.inf
        rules.block(scores_BV, now)
        picked = rules.pick(scores_BV, TOP_K, [histories.row(row) for row in range(len(histories))], rng)
        for row, each in enumerate(picked, start=start):
            lists[row, : len(each.items)] = each.items
    return lists


def ranks_in(lists: Lists, test: EvaluationSet, num_items: int) -> npt.NDArray[np.int64]:
    """Return the place of each target in its user's answer, from 1; beyond the answer if it is not in it, [N].

    Without a history all items tie, which counts against the target.
    """
    found = (lists == test.target_items[:, None]) & (test.histories.lengths > 0)[:, None]
    return np.where(found.any(1), found.argmax(1) + 1, max(num_items, TOP_K + 1))


def _cost(resampled: Bootstrap, name: str) -> dict[str, float]:
    means, delta = resampled.means[name], resampled.difference(name, NONE, "ndcg@20")
    return {
        "hr@20": means["hr@20"],
        "ndcg@20": means["ndcg@20"],
        "delta_ndcg@20": delta.mean,
        "delta_ndcg@20_low": delta.low,
        "delta_ndcg@20_high": delta.high,
    }


def _look(
    lists: Lists,
    counts: npt.NDArray[np.int64],
    vectors_VD: npt.NDArray[np.float32],
    intents: npt.NDArray[np.int64] | None,
    facts: ItemFacts,
) -> dict[str, float]:
    """Return properties of the answers: means over users, except for the coverage."""
    looked = {"coverage": exposure(lists, counts).coverage, "length": float((lists > 0).sum(1).mean())}
    looked["likeness"] = _likeness(lists, vectors_VD)
    if intents is not None:
        looked["intents"] = _distinct(intents[lists], lists > 0)
    if len(facts.categories) > 1:
        looked["categories"] = _distinct(facts.category_V[lists], (lists > 0) & (facts.category_V[lists] > 0))
    return looked


def _likeness(lists: Lists, vectors_VD: npt.NDArray[np.float32]) -> float:
    """Return the mean cosine of two items of an answer; 0 if no answer has two items."""
    unit_VD = vectors_VD / np.maximum(np.linalg.norm(vectors_VD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    unit_VD[PADDING] = 0
    number = (lists > 0).sum(1).astype(np.float64)
    squares = np.concatenate(
        [np.square(unit_VD[lists[start : start + _BLOCK]].sum(1)).sum(1) for start in range(0, len(lists), _BLOCK)]
    )
    several = number > 1
    cosines = (squares - number)[several] / (number * (number - 1))[several]
    return float(cosines.mean()) if several.any() else 0.0


def _distinct(labels: npt.NDArray[np.integer], counted: npt.NDArray[np.bool_]) -> float:
    """Return the mean number of distinct labels in a row, among labels that count."""
    ordered = np.sort(np.where(counted, labels, -1), axis=1)
    new = np.diff(ordered, axis=1, prepend=-1) != 0
    return float(new.sum(1).mean())
