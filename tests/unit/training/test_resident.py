"""Steps that a device assembles for itself are those that the host assembles, in other words."""

from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from elcrec.config import EncoderConfig, IntentConfig, NextItemConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.model.elcrec import SequenceModel, TrainingBatch, batch_of, filled_batch_of
from elcrec.model.grouping import Rows
from elcrec.training import resident as resident_module
from elcrec.training.batches import TrainingData
from elcrec.training.checkpoint import Progress, save_checkpoint
from elcrec.training.loop import _Run, validate
from elcrec.training.resident import ResidentData
from tests.unit.training.helpers import ring_data, tiny_config

CPU, META = torch.device("cpu"), torch.device("meta")
STILL = EncoderConfig(window=5, hidden_size=8, num_blocks=2, hidden_dropout=0.0, attention_dropout=0.0)
LOSSES = [
    NextItemConfig(),
    NextItemConfig(loss="softmax"),
    NextItemConfig(loss="sampled_softmax", samples=50),
    NextItemConfig(prefixes=True),
    NextItemConfig(loss="softmax", prefixes=True),
]
CASES = [
    *product(("elcrec", "iclrec"), LOSSES, ("mean", "positions"), ("window", "items", "filled")),
    *(("sasrec", loss, "mean", "items") for loss in LOSSES),
]
cases = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{case[1].loss}-{case[1].prefixes}-{case[2:]}"
)


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of the rings is four steps."""
    monkeypatch.setattr(resident_module, "_CHUNK_STEPS", 3)


def _config(case: tuple[Any, ...], **changes: object) -> TrainConfig:
    objective, next_item, comparison, pooling = case
    intents = IntentConfig(num_intents=4, comparison=comparison, pooling=pooling)
    return tiny_config(
        **{"objective": objective, "next_item": next_item, "intents": intents, "encoder": STILL} | changes
    )


def _resident(config: TrainConfig, seed: int = 0) -> ResidentData:
    resident = ResidentData(TrainingData(ring_data(), config), config, CPU)
    torch.manual_seed(seed)
    resident.begin_epoch()
    return resident


def _epoch(config: TrainConfig, seed: int = 0) -> list[TrainingBatch]:
    resident = _resident(config, seed)
    return [resident.next_batch(count) for count in resident.epoch()]


def _rows(items_N: Tensor, rows: Rows) -> list[list[int]]:
    """The items of each row of a packed batch."""
    return [items_N[rows.row_M == row].tolist() for row in range(len(rows.lengths_B))]


def _as_the_host_lays_it_out(batch: TrainingBatch) -> TrainingBatch:
    """The same step in groups, with nothing after the last row."""
    filled, lay_out = batch.rows.sees_all, batch_of
    kept = slice(None) if batch.weights_M is None else batch.weights_M > 0
    if filled:
        lay_out = partial(filled_batch_of, device=CPU)
        kept = slice(None) if batch.weights_M is None else slice(batch.num_sequences * STILL.window)
    grouped = lay_out(Ragged.from_rows(_rows(batch.rows.items_N, batch.rows)))
    views = batch.views and lay_out(Ragged.from_rows(_rows(batch.views.items_N, batch.views)))
    negatives = batch.negatives
    if negatives is not None and negatives.log_counts is None:
        negatives = type(negatives)(items=negatives.items[kept], log_counts=None)
    return TrainingBatch(
        rows=grouped,
        num_sequences=batch.num_sequences,
        positives_M=batch.positives_M[kept],
        weights_M=batch.weights_M[kept] if filled and batch.weights_M is not None else None,
        negatives=negatives,
        share=1.0,
        views=views,
        exchange=None,
    )


@cases
def test_losses_and_gradients_of_every_step_are_those_of_the_hosts_layout(case: tuple[Any, ...]) -> None:
    config = _config(case)
    torch.manual_seed(1)
    model = SequenceModel(config, ring_data().num_items).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    for batch in _epoch(config):
        both = [model.losses(one) for one in (batch, _as_the_host_lays_it_out(batch))]
        torch.testing.assert_close(both[0], both[1])
        ours, theirs = (
            torch.autograd.grad(torch.stack(list(one.values())).sum(), list(model.parameters()), allow_unused=True)
            for one in both
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_an_epoch_holds_every_next_training_item_once() -> None:
    config, data = _config(("sasrec", NextItemConfig(), "mean", "items")), ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index)[-6:].tolist()
        expected += pairwise(row)
    seen = []
    for batch in _epoch(config):
        kept = batch.weights_M > 0
        seen += zip(batch.rows.items_N[: len(kept)][kept].tolist(), batch.positives_M[kept].tolist(), strict=True)
    assert sorted(seen) == sorted(expected)


def test_a_filled_epoch_asks_for_every_next_item_once_behind_windows_of_padding() -> None:
    config, data = _config(("elcrec", NextItemConfig(), "positions", "filled")), ring_data()
    expected, seen = [], []
    for index in range(data.num_users):
        row = data.training().row(index)[-6:].tolist()
        expected += [(0, 1)] * (STILL.window - len(row) + 1) + list(pairwise(row))
    for batch in _epoch(config):
        size = batch.num_sequences * STILL.window
        items_N, positives_N = batch.rows.items_N[:size], batch.positives_M[:size]
        assert torch.equal(batch.weights_M > 0, batch.rows.items_N[: len(batch.weights_M)] > 0)
        seen += zip(items_N.tolist(), positives_N.tolist(), strict=True)
        assert batch.rows.lengths_B.tolist() == [STILL.window] * 3 * batch.num_sequences
    assert sorted(seen) == sorted(expected)


def test_an_epoch_holds_every_prefix_once() -> None:
    config, data = _config(("sasrec", NextItemConfig(loss="softmax", prefixes=True), "mean", "items")), ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index).tolist()
        expected += [(tuple(row[max(0, end - 5) : end]), row[end]) for end in range(1, len(row))]
    seen = []
    for batch in _epoch(config):
        seen += zip(map(tuple, _rows(batch.rows.items_N, batch.rows)), batch.positives_M.tolist(), strict=True)
    assert sorted(seen) == sorted(expected)


def test_views_are_of_their_own_sequences_and_differ() -> None:
    for batch in _epoch(_config(CASES[0])):
        count, rows = batch.num_sequences, _rows(batch.rows.items_N, batch.rows)
        views = _rows(batch.views.items_N, batch.views)
        assert rows[count : 3 * count] == views
        assert rows[3 * count :] == [[0] * STILL.window]
        first, second = views[:count], views[count:]
        # A ring of ten items tells rows apart: a view holds items of its own sequence's ring, or masks.
        for row, *pair in zip(rows, first, second, strict=False):
            ring = (row[0] - 1) // 10
            assert all(item == 0 or (item - 1) // 10 == ring for view in pair for item in view)
        assert first != second


def test_negatives_are_unknown_to_their_users() -> None:
    config, data = _config(CASES[0]), ring_data()
    known = {tuple(row): set(row) for row in (data.training().row(user).tolist() for user in range(data.num_users))}
    for batch in _epoch(config):
        for row in range(batch.num_sequences):
            places = torch.nonzero(batch.rows.row_M[: len(batch.positives_M)] == row)[:, 0]
            inputs = (*batch.rows.items_N[places].tolist(), int(batch.positives_M[places[-1]]))
            users = [items for full, items in known.items() if full[-len(inputs) :] == inputs]
            drawn = set(batch.negatives.items[places].tolist())
            assert any(not drawn & items for items in users)


def test_full_steps_of_all_epochs_have_one_shape() -> None:
    config = _config(CASES[0])
    resident, shapes = _resident(config), set()
    for epoch in range(30):
        torch.manual_seed(epoch)
        grown = resident.begin_epoch()
        assert not grown, "there is room for the next epochs"
        for count in resident.epoch():
            batch = resident.next_batch(count)
            if count == config.batch_size:
                shapes.add(
                    (tuple(batch.rows.items_N.shape), tuple(batch.positives_M.shape), tuple(batch.views.row_M.shape))
                )
            assert len(batch.rows.items_N) % batch.rows.chunk == 0
    assert len(shapes) == 1


def test_the_same_seed_draws_the_same_epoch_and_another_seed_another() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [batch.rows.items_N.tolist() for batch in _epoch(_config(CASES[0]), seed)]

    assert drawn(1) == drawn(1) != drawn(2)


def _without_data(holder: object) -> None:
    """Move what an object holds to the device that knows shapes alone."""
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            setattr(holder, name, value.to(META))
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            setattr(holder, name, type(value)(*(part.to(META) for part in value)))


@cases
def test_a_step_asks_for_no_value(case: tuple[Any, ...]) -> None:
    """On the meta device nothing has a value: a step that asked for one, or whose shapes hung on one, would fail."""
    config = _config(case, encoder=EncoderConfig(window=5, hidden_size=8, num_blocks=2))
    resident = _resident(config)
    for holder in (resident, resident._unseen, resident._sampler):
        if holder is not None:
            _without_data(holder)
    count = next(resident.epoch())
    with META:
        model = SequenceModel(config, ring_data().num_items).train()
    losses = model.losses(resident.next_batch(count))
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def _resident_run(config: TrainConfig, folder: Path, epochs: tuple[int, ...]) -> _Run:
    data = ring_data(400)
    batches = TrainingData(data, config)
    run = _Run(data, config, batches, CPU)
    run.resident = ResidentData(batches, config, CPU)
    run.resume(folder)
    for epoch in epochs:
        run._train_epoch(epoch)
    return run


def test_training_on_resident_data_learns_rings_that_popularity_cannot(tmp_path: Path) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    config = tiny_config(encoder=encoder, learning_rate=0.01, averaging=0.9)
    run = _resident_run(config, tmp_path, tuple(range(1, 41)))
    asked = ring_data(400).evaluation("valid")
    assert validate(run._candidate(), asked)["ndcg@5"] > 0.8


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_run_on_resident_data_goes_on_from_its_checkpoint_with_the_same_draws(tmp_path: Path, seed: int) -> None:
    config = msgspec.structs.replace(_config(CASES[0]), seed=seed)
    whole, cut = _resident_run(config, tmp_path / "none", ()), _resident_run(config, tmp_path / "none", ())
    asked, progress = ring_data(400).evaluation("valid"), Progress()
    for _ in range(3):
        whole.advance(progress, asked)
    progress = Progress()
    cut.advance(progress, asked)
    save_checkpoint(tmp_path, cut.fingerprint, progress, cut.modules, cut.best, cut.optimizer)
    resumed = _resident_run(config, tmp_path, ())
    progress = resumed.resume(tmp_path)
    for _ in range(2):
        resumed.advance(progress, asked)
    for mine, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
