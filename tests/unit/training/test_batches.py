from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, NextItemConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.model.elcrec import SequenceModel, TrainingBatch
from elcrec.training.batches import TrainingData
from tests.unit.training.helpers import ring_data, tiny_config


def _epoch(data: TrainingData, seed: int = 0) -> list[TrainingBatch]:
    return list(data.epoch(torch.Generator().manual_seed(seed), torch.device("cpu")))


def _pairs(batch: TrainingBatch) -> list[tuple[int, int]]:
    inputs = batch.rows.items_N[batch.rows.positions_M][: len(batch.positives_M)]
    return list(zip(inputs.tolist(), batch.positives_M.tolist(), strict=True))


def test_an_epoch_predicts_every_next_training_item_in_the_window_once() -> None:
    data = ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index)[-9:].tolist()
        expected += list(pairwise(row))
    seen = [pair for batch in _epoch(TrainingData(data, tiny_config())) for pair in _pairs(batch)]
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
    for batch in _epoch(TrainingData(data, config)):
        items = torch.split(batch.rows.items_N[batch.rows.positions_M], batch.rows.lengths_B.tolist())
        seen += [(tuple(row.tolist()), int(item)) for row, item in zip(items, batch.positives_M, strict=True)]
        assert batch.negatives is None or len(batch.negatives.items) == len(batch.positives_M)
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("objective", ["elcrec", "sasrec"])
def test_the_loss_of_prefixes_is_that_of_the_states_at_their_ends(objective: Literal["elcrec", "sasrec"]) -> None:
    still = EncoderConfig(window=8, hidden_size=8, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0)
    config = tiny_config(objective=objective, encoder=still, next_item=NextItemConfig(loss="softmax", prefixes=True))
    data = ring_data()
    model = SequenceModel(config, data.num_items)
    for batch in _epoch(TrainingData(data, config)):
        rows = batch.rows
        ends = rows.lengths_B[: len(batch.positives_M)].cumsum(0) - 1
        states = model.encoder(rows)[rows.positions_M][ends]
        logits = states @ model.encoder.item_embedding.weight[1:].T
        expected = torch.nn.functional.cross_entropy(logits, batch.positives_M - 1)
        torch.testing.assert_close(model.losses(batch)["next_item"], expected)


def test_held_out_items_never_enter_training() -> None:
    row = list(range(1, 8))
    marked = SequenceData(
        sequences=Ragged.from_rows([[*row, 90 + user, 95 + user] for user in range(4)]),
        train_end=np.full(4, 7, np.int32),
        targets={"valid": np.full(4, 7, np.int32), "test": np.full(4, 8, np.int32)},
        num_items=99,
        md5="marked",
    )
    for batch in _epoch(TrainingData(marked, tiny_config())):
        assert batch.rows.items_N.max() < 90
        assert batch.positives_M.max() < 90
        assert batch.views is not None
        assert batch.views.items_N.max() < 90


def test_negatives_are_drawn_from_the_whole_catalogue() -> None:
    data = ring_data(rings=3)
    batches = [batch for seed in range(5) for batch in _epoch(TrainingData(data, tiny_config()), seed)]
    drawn = {item for batch in batches for item in batch.negatives.items.tolist()}
    assert drawn == set(range(1, data.num_items + 1))


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_negative_is_no_training_item_of_its_user(prefixes: bool) -> None:
    data = ring_data(users=6, rings=2)
    trained = TrainingData(data, tiny_config(batch_size=4, next_item=NextItemConfig(prefixes=prefixes)))
    owners = trained.spans().owners
    for seed in range(100):
        chosen = torch.randperm(len(owners), generator=torch.Generator().manual_seed(seed)).numpy()
        targets = Ragged.of(np.zeros(3 * len(chosen), np.int64), np.full(len(chosen), 3))
        drawn = trained._draw_unseen(chosen, targets, torch.Generator().manual_seed(seed))
        for row, user in enumerate(owners[chosen]):
            assert not set(drawn.row(row).tolist()) & set(data.training().row(user).tolist())


def test_a_user_who_has_seen_the_whole_catalogue_does_not_hang_training() -> None:
    data = ring_data(users=40, rings=1)
    assert _epoch(TrainingData(data, tiny_config()))


def test_a_last_step_of_one_user_is_dropped() -> None:
    assert len(_epoch(TrainingData(ring_data(users=33), tiny_config()))) == 1
    assert len(_epoch(TrainingData(ring_data(users=34), tiny_config()))) == 2


def test_sasrec_draws_no_views() -> None:
    assert all(batch.views is None for batch in _epoch(TrainingData(ring_data(), tiny_config(objective="sasrec"))))


def test_a_log_with_nothing_to_predict_is_refused() -> None:
    short = ring_data(users=5)
    short.train_end[:] = 1
    with pytest.raises(UserError, match="two or more training items"):
        TrainingData(short, tiny_config())
