"""Steps that a GPU packs are those that a CPU groups, in another layout."""

from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.model.grouping import group_rows
from elcrec.model.layout import Rows
from elcrec.model.sequence_model import SequenceModel
from elcrec.training import packed_steps as packed_module
from elcrec.training.checkpoint import Progress, save_checkpoint
from elcrec.training.loop import Run, validate
from elcrec.training.objective import Objective
from elcrec.training.step import Part, Step
from tests.unit.training.helpers import packed_epoch, packed_steps, ring_data, tiny_config

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
    *product(("elcrec", "iclrec"), LOSSES, ("counted", "ignored", "encoded")),
    *product(("sasrec", "sasrec+sequence", "elcrec2"), LOSSES, ("ignored",)),
]
cases = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{case[1].loss}-{case[1].prefixes}-{case[2]}"
)


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of the rings is four steps."""
    monkeypatch.setattr(packed_module, "_CHUNK_STEPS", 3)


def _config(case: tuple[Any, ...], **changes: object) -> TrainConfig:
    objective, next_item, padding = case
    return tiny_config(
        **{"objective": objective, "next_item": next_item, "padding": padding, "encoder": STILL} | changes
    )


def _epoch(config: TrainConfig, seed: int = 0) -> list[Step]:
    return packed_epoch(ring_data(), config, seed)


def _rows(items_N: Tensor, rows: Rows) -> list[list[int]]:
    """The items of each row of a packed step."""
    return [items_N[rows.row_M == row].tolist() for row in range(len(rows.lengths_B))]


def _as_a_cpu_lays_it_out(step: Step) -> Step:
    """The same step in groups, with nothing after the last row of a part."""
    encoded = step.rows.sees_all
    kept = slice(None) if step.weights_M is None else step.weights_M > 0
    if encoded:
        kept = slice(None) if step.weights_M is None else slice(step.num_sequences * STILL.window)
    rows = Ragged.from_rows(_rows(step.rows.items_N, step.rows))
    negatives = step.negatives
    if negatives is not None and negatives.log_counts is None:
        negatives = negatives._replace(items=negatives.items[kept])
    bounds = rows.offsets.tolist()
    return replace(
        step,
        rows=group_rows(rows, sees_all=encoded),
        parts={
            name: Part(part.rows, slice(bounds[part.rows.start], bounds[part.rows.stop]))
            for name, part in step.parts.items()
        },
        targets_M=step.targets_M[kept],
        weights_M=step.weights_M[kept] if encoded and step.weights_M is not None else None,
        negatives=negatives,
    )


@cases
def test_losses_and_gradients_of_every_step_are_those_of_the_layout_of_a_cpu(case: tuple[Any, ...]) -> None:
    config = _config(case)
    torch.manual_seed(1)
    model, objective = SequenceModel(config.model, ring_data().num_items).double(), Objective(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    for step in _epoch(config):
        both = [objective.losses(model, one) for one in (step, _as_a_cpu_lays_it_out(step))]
        torch.testing.assert_close(both[0], both[1])
        ours, theirs = (
            torch.autograd.grad(torch.stack(list(one.values())).sum(), list(model.parameters()), allow_unused=True)
            for one in both
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_an_epoch_holds_every_next_training_item_once() -> None:
    config, data = _config(("sasrec", NextItemConfig(), "ignored")), ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index)[-6:].tolist()
        expected += pairwise(row)
    seen = []
    for step in _epoch(config):
        kept = step.weights_M > 0
        seen += zip(step.rows.items_N[: len(kept)][kept].tolist(), step.targets_M[kept].tolist(), strict=True)
    assert sorted(seen) == sorted(expected)


def test_an_epoch_with_encoded_padding_asks_for_every_next_item_once_behind_windows_of_padding() -> None:
    config, data = _config(("elcrec", NextItemConfig(), "encoded")), ring_data()
    expected, seen = [], []
    for index in range(data.num_users):
        row = data.training().row(index)[-6:].tolist()
        expected += [(0, 1)] * (STILL.window - len(row) + 1) + list(pairwise(row))
    for step in _epoch(config):
        size = step.num_sequences * STILL.window
        items_N, positives_N = step.rows.items_N[:size], step.targets_M[:size]
        assert torch.equal(step.weights_M > 0, step.rows.items_N[: len(step.weights_M)] > 0)
        seen += zip(items_N.tolist(), positives_N.tolist(), strict=True)
        assert step.rows.lengths_B.tolist() == [STILL.window] * 3 * step.num_sequences
    assert sorted(seen) == sorted(expected)


def test_an_epoch_holds_every_prefix_once() -> None:
    config, data = _config(("sasrec", NextItemConfig(loss="softmax", prefixes=True), "ignored")), ring_data()
    expected = []
    for index in range(data.num_users):
        row = data.training().row(index).tolist()
        expected += [(tuple(row[max(0, end - 5) : end]), row[end]) for end in range(1, len(row))]
    seen = []
    for step in _epoch(config):
        seen += zip(map(tuple, _rows(step.rows.items_N, step.rows)), step.targets_M.tolist(), strict=True)
    assert sorted(seen) == sorted(expected)


def test_views_are_of_their_own_sequences_and_differ() -> None:
    for step in _epoch(_config(CASES[0])):
        rows, parts = _rows(step.rows.items_N, step.rows), step.parts
        assert rows[parts["padding"].rows] == [[0] * STILL.window]
        views = rows[parts["views"].rows]
        assert [item for view in views for item in view] == step.rows.items_N[parts["views"].items][
            : sum(map(len, views))
        ].tolist()
        first, second = views[: step.num_sequences], views[step.num_sequences :]
        # A ring of ten items tells rows apart: a view holds items of its own sequence's ring, or masks.
        for row, *pair in zip(rows[parts["inputs"].rows], first, second, strict=True):
            ring = (row[0] - 1) // 10
            assert all(item == 0 or (item - 1) // 10 == ring for view in pair for item in view)
        assert first != second


def test_negatives_are_unknown_to_their_users() -> None:
    config, data = _config(CASES[0]), ring_data()
    known = {tuple(row): set(row) for row in (data.training().row(user).tolist() for user in range(data.num_users))}
    for step in _epoch(config):
        for row in range(step.num_sequences):
            places = torch.nonzero(step.rows.row_M[: len(step.targets_M)] == row)[:, 0]
            inputs = (*step.rows.items_N[places].tolist(), int(step.targets_M[places[-1]]))
            users = [items for full, items in known.items() if full[-len(inputs) :] == inputs]
            drawn = set(step.negatives.items[places].tolist())
            assert any(not drawn & items for items in users)


def test_full_steps_of_all_epochs_have_one_shape() -> None:
    config = _config(CASES[0])
    steps, shapes = packed_steps(ring_data(), config), set()
    for epoch in range(30):
        torch.manual_seed(epoch)
        room = steps.room
        for count in steps.epoch(epoch):
            step = steps.next_step(count)
            if count == config.batch_size:
                shapes.add((tuple(step.rows.items_N.shape), tuple(step.targets_M.shape), str(step.parts)))
            assert len(step.rows.items_N) % step.rows.chunk == 0
        assert epoch == 0 or steps.room == room, "there is room for the next epochs"
    assert len(shapes) == 1


def test_the_same_seed_draws_the_same_epoch_and_another_seed_another() -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [step.rows.items_N.tolist() for step in _epoch(_config(CASES[0]), seed)]

    assert drawn(1) == drawn(1) != drawn(2)


def _without_data(holder: object) -> None:
    """Move what an object holds to the device that knows shapes alone."""
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            setattr(holder, name, value.to(META))
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            setattr(holder, name, type(value)(*(part.to(META) for part in value)))


@cases
def test_no_step_asks_for_a_value(case: tuple[Any, ...]) -> None:
    """On the meta device nothing has a value: a step that asked for one, or whose shapes hung on one, would fail."""
    config = _config(case, encoder=EncoderConfig(window=5, hidden_size=8, num_blocks=2))
    steps = packed_steps(ring_data(), config)
    steps._draw()
    for holder in (steps, steps._sampler, steps._assembler, steps._assembler._unseen):
        if holder is not None:
            _without_data(holder)
    steps._assemble(0)
    with META:
        model = SequenceModel(config.model, ring_data().num_items).train()
    losses = Objective(config).losses(model, steps.next_step(config.batch_size))
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def _packed_run(config: TrainConfig, folder: Path, epochs: tuple[int, ...]) -> Run:
    """A run on a CPU whose steps are packed as on a GPU."""
    data = ring_data(400)
    run = Run(data, config, CPU)
    run.steps = packed_steps(data, config)
    run.begin(folder)
    for epoch in epochs:
        run.train_epoch(epoch)
    return run


@pytest.mark.slow
def test_training_on_packed_steps_learns_rings_that_popularity_cannot(tmp_path: Path) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    config = tiny_config(encoder=encoder, learning_rate=0.01, averaging=0.9)
    run = _packed_run(config, tmp_path, tuple(range(1, 41)))
    asked = ring_data(400).evaluation("valid")
    assert validate(run.candidate(), asked)["ndcg@5"] > 0.8


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_run_on_packed_steps_resumes_from_its_checkpoint_with_the_same_draws(tmp_path: Path, seed: int) -> None:
    config = msgspec.structs.replace(_config(CASES[0]), seed=seed)
    whole, cut = _packed_run(config, tmp_path / "none", ()), _packed_run(config, tmp_path / "none", ())
    asked, progress = ring_data(400).evaluation("valid"), Progress()
    for _ in range(3):
        whole.advance(progress, asked)
    progress = Progress()
    cut.advance(progress, asked)
    save_checkpoint(tmp_path, cut.fingerprint, progress, cut.modules, cut.best, cut.optimizer)
    resumed = _packed_run(config, tmp_path, ())
    progress = resumed.begin(tmp_path)
    for _ in range(2):
        resumed.advance(progress, asked)
    for mine, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
