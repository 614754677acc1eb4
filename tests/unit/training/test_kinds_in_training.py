"""What a log says of its events reaches the loss: weights of targets, and negatives where repeats are allowed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from elcrec.config import NextItemConfig, TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.losses import binary_loss, softmax_loss
from elcrec.training.objective import Objective
from elcrec.training.step import Step
from tests.unit.training.helpers import RING, grouped_epoch, packed_epoch, ring_data, tiny_config

Epoch = Callable[[SequenceData, TrainConfig], list[Step]]
epochs = pytest.mark.parametrize("epoch", [grouped_epoch, packed_epoch])


@epochs
@pytest.mark.parametrize("prefixes", [False, True])
def test_targets_weigh_what_their_events_do(epoch: Epoch, prefixes: bool) -> None:
    data = ring_data()
    heavy = replace(data, weights=(data.sequences.values % 3).astype(np.float32))
    steps = epoch(heavy, tiny_config(next_item=NextItemConfig(prefixes=prefixes)))
    for step in steps:
        asked = step.weights_M > 0
        assert torch.equal(step.weights_M[asked], (step.targets_M[asked] % 3).float())
    assert sum(int((step.weights_M > 0).sum()) for step in steps) == sum(
        int(np.count_nonzero(row[1:] % 3)) for row in map(data.training().row, range(data.num_users))
    )


@pytest.mark.parametrize("loss", ["bce", "softmax", "sampled_softmax"])
def test_an_event_that_weighs_nothing_changes_no_loss(loss: str) -> None:
    config = tiny_config(objective="sasrec", next_item=NextItemConfig(loss=loss))
    data = ring_data()
    model, objective = SequenceModel(config.model, data.num_items).eval(), Objective(config)
    weighted = replace(data, weights=(data.sequences.values % 2).astype(np.float32))
    (step, *_) = grouped_epoch(weighted, config)
    kept = step.weights_M > 0
    items = step.negatives.items[kept] if loss == "bce" else None
    alone = replace(step, targets_M=torch.where(kept, step.targets_M, 1))
    assert 0 < int(kept.sum()) < len(kept)
    found = objective.losses(model, step)["next_item"]
    assert torch.equal(found, objective.losses(model, alone)["next_item"])
    assert items is None or len(items)


def test_a_step_whose_weights_are_all_zero_has_loss_zero() -> None:
    states, items, nothing = torch.randn(4, 8), torch.randn(6, 8), torch.zeros(4)
    assert binary_loss(states, states, states, nothing) == 0
    assert softmax_loss(states, items, torch.tensor([1, 2, 3, 4]), weights_N=nothing) == 0


@pytest.mark.parametrize("prefixes", [False, True])
def test_what_a_user_met_is_a_negative_where_repeats_are_allowed(prefixes: bool) -> None:
    data = ring_data(rings=1)
    config = tiny_config(next_item=NextItemConfig(prefixes=prefixes))

    def met(repeats: bool) -> int:
        count = 0
        for step in grouped_epoch(replace(data, repeats=repeats), config):
            rows = torch.split(step.rows.of_items(step.rows.items_N), step.rows.lengths_B.tolist())
            asked = [1] * len(step.targets_M) if prefixes else [len(row) for row in rows[: step.num_sequences]]
            drawn = torch.split(step.negatives.items, asked)
            count += sum(int(torch.isin(own, row).sum()) for own, row in zip(drawn, rows, strict=False))
        return count

    assert met(True) > 100
    assert met(False) == 0


@epochs
def test_negatives_where_repeats_are_allowed_are_all_items_but_the_target(epoch: Epoch) -> None:
    steps = epoch(replace(ring_data(rings=1), repeats=True), tiny_config(next_item=NextItemConfig(prefixes=True)))
    drawn = torch.cat([step.negatives.items for step in steps])
    assert sorted(set(drawn.tolist())) == list(range(1, RING + 1))
    assert not any(bool((step.negatives.items == step.targets_M).any()) for step in steps)
