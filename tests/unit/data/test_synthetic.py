import collections
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from elcrec.config import SyntheticConfig, merge, to_dict
from elcrec.data.synthetic import SyntheticLog, generate

SMALL = SyntheticConfig(users=300, items=120, intents=6)


@pytest.fixture(scope="module")
def sample() -> SyntheticLog:
    return generate(SyntheticConfig())


def histories(sample: SyntheticLog) -> list[list[str]]:
    frame: pd.DataFrame = sample.log.to_pandas()
    return frame.sort_values(["user_id", "timestamp"], kind="stable").groupby("user_id").item_id.agg(list).tolist()


def test_the_same_configuration_gives_the_same_log_and_another_seed_another(sample: SyntheticLog) -> None:
    assert generate(SyntheticConfig()).log == sample.log
    assert generate(SyntheticConfig(seed=8)).log != sample.log


def test_the_log_has_the_size_that_the_configuration_asks_for(sample: SyntheticLog) -> None:
    lengths = [len(history) for history in histories(sample)]
    assert len(lengths) == 2000
    assert len(sample.items) == 600
    assert min(lengths) >= 5
    assert np.mean(lengths) == pytest.approx(12, rel=0.05)


def test_times_rise_within_a_user_and_stay_in_the_first_half_of_2026(sample: SyntheticLog) -> None:
    frame: pd.DataFrame = sample.log.to_pandas()
    assert frame.timestamp.is_monotonic_increasing
    assert not frame.duplicated(["user_id", "timestamp"]).any()
    assert frame.timestamp.min() >= "2026-01-01"
    assert frame.timestamp.max() < "2026-07-01"


def test_users_meet_the_items_of_their_own_intents_except_for_noise(sample: SyntheticLog) -> None:
    intent_of = dict(zip(*sample.items.to_pydict().values(), strict=True))
    held = dict(zip(*sample.users.to_pydict().values(), strict=True))
    frame: pd.DataFrame = sample.log.to_pandas()
    own = [intent_of[item] in held[user] for user, item in zip(frame.user_id, frame.item_id, strict=True)]
    assert 0.93 < np.mean(own) < 0.98  # noise 0.05 hits an own intent now and then
    assert {len(intents) for intents in held.values()} == {1, 2}
    assert set(intent_of.values()) == set(range(12))


def test_a_model_of_transitions_beats_popularity_threefold(sample: SyntheticLog) -> None:
    sequences = histories(sample)
    popularity = collections.Counter(item for history in sequences for item in history[:-1])
    followers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for history in sequences:
        for current, following in pairwise(history[:-1]):
            followers[current][following] += 1
    tops = [item for item, _ in popularity.most_common(200)]

    def gain(ranked: list[str], history: list[str]) -> float:
        unseen = [item for item in ranked if item not in set(history[:-1])][:20]
        return 1 / math.log2(unseen.index(history[-1]) + 2) if history[-1] in unseen else 0.0

    by_popularity = np.mean([gain(tops, history) for history in sequences])
    by_transition = np.mean([gain([i for i, _ in followers[h[-2]].most_common()], h) for h in sequences])
    assert by_transition > 3 * by_popularity


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"users": 301},
        {"items": 121},
        {"intents": 5},
        {"intents_per_user": 3},
        {"mean_length": 13.0},
        {"popularity_exponent": 0.0},
        {"follow": 0.5},
        {"switch": 0.3},
        {"noise": 0.3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_log(change: dict[str, float]) -> None:
    changed = SyntheticConfig(**merge(to_dict(SMALL), change))
    assert generate(changed).log != generate(SMALL).log


@pytest.mark.parametrize(
    "config",
    [
        SyntheticConfig(users=1, items=1, intents=1),
        SyntheticConfig(users=3, items=4, intents=3, intents_per_user=9),
        SyntheticConfig(users=5, items=9, intents=3, mean_length=5.0, noise=1.0, switch=1.0, follow=1.0),
    ],
)
def test_extreme_configurations_still_give_a_log(config: SyntheticConfig) -> None:
    assert len(generate(config).log) >= 5 * config.users


def test_popularity_is_skewed_inside_an_intent(sample: SyntheticLog) -> None:
    counts = sample.log.to_pandas().item_id.value_counts()
    assert counts.iloc[:60].sum() > 0.2 * counts.sum()  # a tenth of the items
