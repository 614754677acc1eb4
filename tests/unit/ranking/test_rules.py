"""Properties of rules, on catalogues, scores and rules that hypothesis makes up."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elcrec.config import GroupRule, RulesConfig
from elcrec.errors import UserError
from elcrec.ranking.item_facts import ItemFacts
from elcrec.ranking.rules import Picked, Rules

ITEMS = 60
NOBODY = np.empty(0, np.int64)
GROUPS = ("", "a", "b", "c")


def facts(seed: int = 0) -> ItemFacts:
    categories = np.random.default_rng(seed).integers(0, len(GROUPS), ITEMS + 1).astype(np.int32)
    return ItemFacts(
        categories=GROUPS,
        category_V=categories,
        available_V=np.ones(ITEMS + 1, np.bool_),
        until_V=np.full(ITEMS + 1, np.iinfo(np.int64).max),
    )


def rules(config: RulesConfig, seed: int = 0) -> Rules:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(ITEMS + 1, 8)).astype(np.float32)
    intents = generator.integers(0, 4, ITEMS + 1)
    index_of = {f"i{item}": item for item in range(1, ITEMS + 1)}
    return Rules(config, facts(seed), vectors, intent_V=intents, index_of=index_of)


def intents(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    generator.normal(size=(ITEMS + 1, 8))
    return generator.integers(0, 4, ITEMS + 1)


def scores(seed: int, left: int = ITEMS) -> np.ndarray:
    generator = np.random.default_rng(seed + 1000)
    row = np.full(ITEMS + 1, -np.inf, np.float32)
    shown = generator.permutation(np.arange(1, ITEMS + 1))[:left]
    row[shown] = generator.normal(size=left).round(1)
    return row[None]


def pick(config: RulesConfig, seed: int, k: int, left: int = ITEMS) -> Picked:
    history = np.random.default_rng(seed).integers(1, ITEMS + 1, 9)
    (picked,) = rules(config, seed).pick(scores(seed, left), k, [history], np.random.default_rng(seed))
    return picked


CAPS = st.one_of(st.none(), st.integers(0, 5))
CONFIGS: st.SearchStrategy[RulesConfig] = st.builds(
    RulesConfig,
    categories=st.dictionaries(st.sampled_from(GROUPS[1:]), st.builds(GroupRule, cap=CAPS, boost=st.floats(-2, 2))),
    category_cap=st.one_of(st.none(), st.integers(1, 5)),
    intent_cap=st.one_of(st.none(), st.integers(1, 8)),
    diversity=st.sampled_from([0.0, 0.3]),
    calibration=st.sampled_from([0.0, 0.4]),
    exploration=st.sampled_from([0.0, 0.5]),
    candidates=st.sampled_from([1, 7, 50]),
)
CASES: dict[str, Any] = {"seed": st.integers(0, 500), "k": st.integers(1, 20), "left": st.integers(0, ITEMS)}


def caps_of(config: RulesConfig, group: str) -> float:
    if group == "":
        return np.inf
    own = config.categories[group].cap if group in config.categories else None
    general = np.inf if config.category_cap is None else config.category_cap
    return general if own is None else own


@settings(max_examples=80, deadline=None)
@given(config=CONFIGS, **CASES)
def test_caps_are_never_violated_whatever_the_other_rules(config: RulesConfig, seed: int, k: int, left: int) -> None:
    picked = pick(config, seed, k, left)

    items = picked.items.tolist()
    assert len(items) == len(set(items)) <= k
    assert np.isfinite(scores(seed, left)[0, items]).all()
    categories = Counter(GROUPS[code] for code in facts(seed).category_V[items])
    assert all(count <= caps_of(config, group) for group, count in categories.items())
    held = Counter(intents(seed)[items].tolist())
    assert config.intent_cap is None or max(held.values(), default=0) <= config.intent_cap
    np.testing.assert_array_equal(picked.scores, scores(seed, left)[0, items])


@settings(max_examples=80, deadline=None)
@given(config=CONFIGS, **CASES)
def test_caps_alone_skip_what_is_full_and_keep_the_order_of_the_rest(
    config: RulesConfig, seed: int, k: int, left: int
) -> None:
    capped = RulesConfig(
        categories={name: GroupRule(cap=rule.cap) for name, rule in config.categories.items()},
        category_cap=config.category_cap,
        intent_cap=config.intent_cap,
        candidates=config.candidates,
    )
    expected: list[int] = []
    row = scores(seed, left)[0]
    categories, own = facts(seed).category_V, intents(seed)
    for item in np.argsort(-row, kind="stable"):
        same = sum(categories[other] == categories[item] for other in expected)
        alike = sum(own[other] == own[item] for other in expected)
        full = same >= caps_of(capped, GROUPS[categories[item]]) or alike >= (capped.intent_cap or np.inf)
        if np.isfinite(row[item]) and not full and len(expected) < k:
            expected.append(int(item))

    assert pick(capped, seed, k, left).items.tolist() == expected


def test_without_rules_nothing_changes() -> None:
    assert rules(RulesConfig()).idle
    best = np.argsort(-scores(1)[0], kind="stable")[:10]
    assert pick(RulesConfig(), 1, 10).items.tolist() == best.tolist()


def test_a_boost_moves_a_category_as_if_its_scores_were_higher() -> None:
    row, codes = scores(2)[0], facts(2).category_V
    best = np.argsort(-(row + np.where(codes == 1, np.float32(0.7), 0)), kind="stable")[:10]

    picked = pick(RulesConfig(categories={"a": GroupRule(boost=0.7)}), 2, 10)

    assert picked.items.tolist() == best.tolist()
    np.testing.assert_array_equal(picked.scores, row[best])


def test_an_intent_is_named_by_an_item_of_it() -> None:
    barred = intents(3)[5]

    picked = pick(RulesConfig(intents={"i5": GroupRule(cap=0)}), 3, 20)

    assert barred not in intents(3)[picked.items]
    with pytest.raises(UserError, match="no item 'lost'"):
        rules(RulesConfig(intents={"lost": GroupRule(cap=1)}))


def test_rules_by_intent_need_a_model_that_has_some() -> None:
    with pytest.raises(UserError, match="the model has no intents"):
        Rules(RulesConfig(intent_cap=1), facts(), np.ones((ITEMS + 1, 8), np.float32))


def test_diversity_is_maximal_marginal_relevance() -> None:
    seed, weight, k = 4, 0.6, 8
    vectors = np.random.default_rng(seed).normal(size=(ITEMS + 1, 8)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    row = scores(seed)[0]
    left = np.argsort(-row, kind="stable")[:20].tolist()
    low, high = row[left].min(), row[left].max()
    expected: list[int] = []
    while len(expected) < k:
        values = [
            (1 - weight) * (row[item] - low) / (high - low)
            - weight * max((unit[item] @ unit[other] for other in expected), default=0)
            for item in left
        ]
        expected.append(left.pop(int(np.argmax(values))))

    assert pick(RulesConfig(diversity=weight, candidates=20), seed, k).items.tolist() == expected


def test_calibration_brings_the_intents_of_the_answer_to_those_of_the_history() -> None:
    history = np.flatnonzero(intents(5) == 2)[:6]
    (picked,) = rules(RulesConfig(calibration=1.0), 5).pick(scores(5), 6, [history], np.random.default_rng(0))

    assert set(intents(5)[picked.items]) == {2}


def test_the_propensity_is_how_often_an_item_is_drawn_for_its_place() -> None:
    config = RulesConfig(exploration=0.4, category_cap=4, candidates=12)
    made, rng = rules(config, 6), np.random.default_rng(0)
    drawn: Counter[tuple[int, int]] = Counter()
    stated: dict[tuple[int, int], float] = {}
    rounds = 4000
    (best,) = rules(RulesConfig(category_cap=4, candidates=12), 6).pick(scores(6), 4, [NOBODY], rng)
    for picked in made.pick(np.repeat(scores(6), rounds, axis=0), 4, [NOBODY] * rounds, rng):
        for place, (item, propensity) in enumerate(zip(picked.items, picked.propensities, strict=True)):
            drawn[place, int(item)] += 1
            assert stated.setdefault((place, int(item)), propensity) == propensity

    assert any(propensity < 0.5 for propensity in stated.values())
    for (place, item), propensity in stated.items():
        spread = np.sqrt(propensity * (1 - propensity) / rounds)
        assert abs(drawn[place, item] / rounds - propensity) < 5 * spread + 1e-9, (place, item)
        assert (propensity >= 0.6) == (item == best.items[place])
    for place in range(4):
        assert sum(share for (at, _), share in stated.items() if at == place) == pytest.approx(1)


def test_without_exploration_every_propensity_is_one() -> None:
    assert pick(RulesConfig(diversity=0.5), 7, 10).propensities.tolist() == [1.0] * 10


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 500), k=st.integers(1, 20), cap=st.integers(2, 6), calibration=st.sampled_from([0.0, 0.35]))
def test_every_place_holds_the_candidate_of_the_highest_value(seed: int, k: int, cap: int, calibration: float) -> None:
    config = RulesConfig(intent_cap=cap, category_cap=cap, diversity=0.3, calibration=calibration, candidates=ITEMS)
    history = np.random.default_rng(seed).integers(1, ITEMS + 1, 9)
    vectors = np.random.default_rng(seed).normal(size=(ITEMS + 1, 8)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    row, own, categories = scores(seed)[0], intents(seed), facts(seed).category_V
    low, high = row[1:].min(), row[1:].max()
    share = np.bincount(own[history], minlength=4) / len(history)
    above: list[int] = []

    def value(item: int) -> float:
        near = max((unit[item] @ unit[other] for other in above), default=0)
        lag = share[own[item]] * (len(above) + 1) - sum(own[other] == own[item] for other in above)
        return (0.7 - calibration) * (row[item] - low) / (high - low) - 0.3 * near + calibration * lag

    def is_full(item: int) -> bool:
        alike = sum(own[other] == own[item] for other in above)
        same = sum(categories[other] == categories[item] for other in above)
        return alike >= cap or (categories[item] != 0 and same >= cap)

    for chosen in pick(config, seed, k).items.tolist():
        best = max(value(item) for item in range(1, ITEMS + 1) if item not in above and not is_full(item))
        assert not is_full(chosen)
        assert value(chosen) == pytest.approx(best, abs=1e-5)
        above.append(chosen)
