"""Counterfactual estimates cover the truth of simulated worlds in which it is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from elcrec.errors import UserError
from elcrec.evaluation.bootstrap import Estimate
from elcrec.evaluation.counterfactual import doubly_robust, effective_draws, inverse_propensity, self_normalized

FloatArray = npt.NDArray[np.float64]
WORLDS, DRAWS, INTENTS, ITEMS, EXPLORATION = 200, 3000, 8, 12, 0.3
COVERED = 0.90


@dataclass(frozen=True)
class World:
    """Users with planted intents click by their true preferences on what a policy with exploration shows."""

    rewards: FloatArray
    propensities: FloatArray
    targets: FloatArray
    predicted: FloatArray
    expected: FloatArray
    truth: float

    @classmethod
    def draw(cls, seed: int, *, wrong_model: bool = False) -> "World":
        random = np.random.default_rng(seed)
        preferences_KV = random.beta(1, 6, (INTENTS, ITEMS))
        logging_K, other_K = random.integers(ITEMS, size=(2, INTENTS))
        chances_KV = np.full((INTENTS, ITEMS), EXPLORATION / ITEMS)
        chances_KV[np.arange(INTENTS), logging_K] += 1 - EXPLORATION
        users = random.integers(INTENTS, size=DRAWS)
        shown = (chances_KV.cumsum(1)[users] < random.random((DRAWS, 1))).sum(1).clip(max=ITEMS - 1)
        guess_KV = np.full_like(preferences_KV, 0.9) if wrong_model else preferences_KV + 0.02
        return cls(
            rewards=(random.random(DRAWS) < preferences_KV[users, shown]).astype(float),
            propensities=chances_KV[users, shown],
            targets=(other_K[users] == shown).astype(float),
            predicted=guess_KV[users, shown],
            expected=guess_KV[users, other_K[users]],
            # Over all users that could have come, not over those that did.
            truth=float(preferences_KV[np.arange(INTENTS), other_K].mean()),
        )

    @property
    def log(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return self.rewards, self.propensities, self.targets


ESTIMATORS: dict[str, Callable[[World], Estimate]] = {
    "IPS": lambda world: inverse_propensity(*world.log),
    "SNIPS": lambda world: self_normalized(*world.log),
    "doubly robust": lambda world: doubly_robust(*world.log, predicted=world.predicted, expected=world.expected),
}


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World.draw(seed) for seed in range(WORLDS)]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_cover_the_truth_in_nine_of_ten_worlds(worlds: list[World], name: str) -> None:
    found = [(ESTIMATORS[name](world), world.truth) for world in worlds]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate, truth in found])
    bias = np.mean([estimate.mean - truth for estimate, truth in found])
    assert covered >= COVERED
    assert abs(bias) < 0.01


def test_without_weights_the_same_log_misses_the_truth(worlds: list[World]) -> None:
    found = [(inverse_propensity(world.rewards, np.ones(DRAWS), np.ones(DRAWS)), world.truth) for world in worlds]
    assert np.mean([estimate.low <= truth <= estimate.high for estimate, truth in found]) < 0.5


def test_a_wrong_model_of_rewards_costs_precision_and_not_truth() -> None:
    found = [(ESTIMATORS["doubly robust"](world), world.truth) for world in map(_wrong, range(60))]
    assert np.mean([estimate.low <= truth <= estimate.high for estimate, truth in found]) >= 0.85


def _wrong(seed: int) -> World:
    return World.draw(seed, wrong_model=True)


def test_a_right_model_and_normalisation_narrow_the_intervals(worlds: list[World]) -> None:
    def width(name: str) -> float:
        found = [ESTIMATORS[name](world) for world in worlds]
        return float(np.mean([estimate.high - estimate.low for estimate in found]))

    assert width("doubly robust") < width("IPS")
    assert width("SNIPS") < width("IPS")


def test_the_logging_policy_itself_is_estimated_by_its_mean_reward() -> None:
    rewards, chances = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.2, 0.4, 0.1, 0.3])
    for estimate in (inverse_propensity(rewards, chances, chances), self_normalized(rewards, chances, chances)):
        assert estimate.mean == pytest.approx(0.5)
        assert (estimate.low + estimate.high) / 2 == pytest.approx(0.5)
    assert effective_draws(chances, chances) == pytest.approx(4)
    assert effective_draws(np.full(4, 0.5), np.array([1.0, 0, 0, 0])) == pytest.approx(1)


def test_what_cannot_be_weighted_is_one_clear_error() -> None:
    one, none = np.ones(3), np.zeros(3)
    with pytest.raises(UserError, match="above 0"):
        inverse_propensity(one, none, one)
    with pytest.raises(UserError, match="differ or are 0"):
        inverse_propensity(one, one, np.ones(2))
    with pytest.raises(UserError, match="nothing of the log"):
        self_normalized(one, one, none)
