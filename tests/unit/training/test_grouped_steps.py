from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, NextItemConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.data import TrainingData
from elcrec.training.objective import Objective
from elcrec.training.step import Step
from tests.unit.training.helpers import grouped_epoch, ring_data, tiny_config


def _pairs(step: Step) -> list[tuple[int, int]]:
    inputs = step.rows.of_items(step.rows.items_N)[: len(step.targets_M)]
    return list(zip(inputs.tolist(), step.targets_M.tolist(), strict=True))


def test_an_epoch_predicts_every_next_training_item_in_the_window_once() -> None:
    data = ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index)[-9:].tolist()
        expected += list(pairwise(row))
    seen = [pair for step in grouped_epoch(data, tiny_config()) for pair in _pairs(step)]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_an_epoch_of_prefixes_predicts_the_last_item_of_each_once(loss: Literal["bce", "softmax"]) -> None:
    data = ring_data()
    config = tiny_config(objective="sasrec", next_item=NextItemConfig(loss=loss, prefixes=True))
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index).tolist()
        expected += [(tuple(row[max(0, end - 8) : end]), row[end]) for end in range(1, len(row))]
    seen = []
    for step in grouped_epoch(data, config):
        items = torch.split(step.rows.of_items(step.rows.items_N), step.rows.lengths_B.tolist())
        seen += [(tuple(row.tolist()), int(item)) for row, item in zip(items, step.targets_M, strict=True)]
        assert step.negatives is None or len(step.negatives.items) == len(step.targets_M)
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("objective", ["elcrec", "sasrec"])
def test_the_loss_of_prefixes_is_that_of_the_states_at_their_ends(objective: str) -> None:
    still = EncoderConfig(window=8, hidden_size=8, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0)
    config = tiny_config(objective=objective, encoder=still, next_item=NextItemConfig(loss="softmax", prefixes=True))
    data = ring_data()
    model, objective = SequenceModel(config.model, data.num_items), Objective(config)
    for step in grouped_epoch(data, config):
        rows = step.rows
        ends = rows.lengths_B[: len(step.targets_M)].cumsum(0) - 1
        states = rows.of_items(model.encoder(rows))[ends]
        logits = states @ model.encoder.item_embedding.weight[1:].T
        expected = torch.nn.functional.cross_entropy(logits, step.targets_M - 1)
        torch.testing.assert_close(objective.losses(model, step)["next_item"], expected)


def test_held_out_items_never_enter_training() -> None:
    row = list(range(1, 8))
    marked = SequenceData(
        sequences=Ragged.from_rows([[*row, 90 + user, 95 + user] for user in range(4)]),
        train_end=np.full(4, 7, np.int32),
        targets={"valid": np.full(4, 7, np.int32), "test": np.full(4, 8, np.int32)},
        num_items=99,
        md5="marked",
    )
    for step in grouped_epoch(marked, tiny_config()):
        assert "views" in step.parts
        assert step.rows.items_N.max() < 90
        assert step.targets_M.max() < 90


def test_negatives_are_drawn_from_the_whole_catalogue() -> None:
    data = ring_data(rings=3)
    steps = [step for seed in range(5) for step in grouped_epoch(data, tiny_config(), seed)]
    drawn = {item for step in steps for item in step.negatives.items.tolist()}
    assert drawn == set(range(1, data.num_items + 1))


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_negative_is_no_training_item_of_its_user(prefixes: bool) -> None:
    data = ring_data(users=6, rings=2)
    known = {tuple(data.training().row(user).tolist()) for user in range(data.num_users)}
    config = tiny_config(objective="sasrec", batch_size=4, next_item=NextItemConfig(prefixes=prefixes))
    for seed in range(100):
        for step in grouped_epoch(data, config, seed):
            inputs = torch.split(step.rows.of_items(step.rows.items_N), step.rows.lengths_B.tolist())
            counts = [1] * len(inputs) if prefixes else step.rows.lengths_B.tolist()
            drawn = torch.split(step.negatives.items, counts)
            for row, items in zip(inputs, drawn, strict=True):
                users = [user for user in known if " ".join(map(str, row.tolist())) in " ".join(map(str, user))]
                assert any(not set(items.tolist()) & set(user) for user in users)


def test_a_user_who_has_seen_the_whole_catalogue_does_not_hang_training() -> None:
    data = ring_data(users=40, rings=1)
    assert grouped_epoch(data, tiny_config())


def test_a_last_step_of_one_user_is_dropped() -> None:
    assert len(grouped_epoch(ring_data(users=33), tiny_config())) == 1
    assert len(grouped_epoch(ring_data(users=34), tiny_config())) == 2


def test_sasrec_draws_no_views() -> None:
    config = tiny_config(objective="sasrec")
    assert all(set(step.parts) == {"inputs"} for step in grouped_epoch(ring_data(), config))


def test_a_log_with_nothing_to_predict_is_refused() -> None:
    short = ring_data(users=5)
    short.train_end[:] = 1
    with pytest.raises(UserError, match="two or more training items"):
        TrainingData(short, tiny_config())
