"""The chances that a replay computes are those with which the rules draw."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from elcrec.config import RulesConfig
from tests.unit.ranking.test_rules import CASES, CONFIGS, NOBODY, rules, scores


@settings(max_examples=60)
@given(config=CONFIGS, **CASES)
def test_every_item_has_the_propensity_that_the_chances_give_it(config: RulesConfig, **case: Any) -> None:
    made, row = rules(config, case["seed"]), scores(case["seed"], case["left"])

    (picked,) = made.pick(row, case["k"], [NOBODY], np.random.default_rng(case["seed"]))
    (found,) = made.chances(row, case["k"], [NOBODY])

    columns = [found.items_C.tolist().index(item) for item in picked.items]
    np.testing.assert_array_equal(found.chance_PC[np.arange(len(columns)), columns], picked.propensities)
    np.testing.assert_allclose(found.chance_PC.sum(1), 1)


def test_items_are_drawn_with_their_stated_chances() -> None:
    made, row = rules(RulesConfig(exploration=0.5, candidates=8)), scores(0)
    (found,) = made.chances(row, 3, [NOBODY])
    random, counts_PC, draws = np.random.default_rng(0), np.zeros_like(found.chance_PC), 1500

    for _ in range(draws):
        (picked,) = made.pick(row, 3, [NOBODY], random)
        for place, item in enumerate(picked.items):
            counts_PC[place, found.items_C == item] += 1 / draws

    assert counts_PC == pytest.approx(found.chance_PC, abs=0.05)


def test_the_chances_of_a_row_do_not_depend_on_what_another_wants() -> None:
    made = rules(RulesConfig(exploration=0.5, candidates=6))
    (alone,) = made.chances(scores(0), 2, [NOBODY])
    both = np.concatenate((scores(0), scores(1)))
    beside, longer = made.chances(both, [2, 15], [NOBODY, NOBODY])
    np.testing.assert_array_equal(beside.items_C, alone.items_C)
    np.testing.assert_array_equal(beside.chance_PC, alone.chance_PC)
    assert len(longer.items_C) == 15
