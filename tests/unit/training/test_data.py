"""The sample of histories that tells which items belong together."""

import pytest
import torch

from elcrec.training.data import TrainingData
from tests.unit.training.helpers import ring_data, tiny_config


def _sample(most: int, most_items: int, seed: int = 0) -> list[list[int]]:
    data = TrainingData(ring_data(), tiny_config())
    sample = data.sample(most, torch.Generator().manual_seed(seed), most_items)
    return [sample.row(row).tolist() for row in range(len(sample))]


def _histories() -> list[list[int]]:
    data = ring_data()
    return [data.sequences.row(user)[: data.train_end[user]].tolist() for user in range(len(data.train_end))]


def test_a_sample_that_may_hold_all_holds_all() -> None:
    everything = _histories()
    assert _sample(most=120, most_items=sum(map(len, everything))) == everything


@pytest.mark.parametrize(("most", "most_items"), [(30, 10_000), (119, 10_000), (10_000, 100), (30, 100), (10, 1)])
def test_a_sample_keeps_to_its_users_and_its_items(most: int, most_items: int) -> None:
    everything, sample = _histories(), _sample(most, most_items)
    rest = iter(everything)
    assert all(row in rest for row in sample), "whole histories, in order, each once"
    assert 1 <= len(sample) <= most
    size, longest = sum(map(len, sample)), max(map(len, everything))
    assert size <= max(most_items, longest)
    assert len(sample) == most or size > most_items - longest
    assert sample != _sample(most, most_items, seed=1)
