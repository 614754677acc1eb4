"""Lazy updates: a step moves the items that it names as Adam would, and no other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.distributed import ALONE
from elcrec.training.lazy_items import LazyItems
from elcrec.training.loop import Run, fit
from elcrec.training.objective import Objective
from elcrec.training.step import Step, Steps
from tests.unit.training.helpers import grouped_epoch, packed_steps, ring_data, tiny_config

CPU = torch.device("cpu")
STILL = EncoderConfig(window=8, hidden_size=8, num_blocks=1, hidden_dropout=0.0, attention_dropout=0.0)
CASES = [
    ("elcrec", NextItemConfig()),
    ("elcrec2", NextItemConfig(loss="sampled_softmax", samples=8)),
    ("sasrec", NextItemConfig(loss="sampled_softmax", samples=8, prefixes=True)),
]
cases = pytest.mark.parametrize(("objective", "next_item"), CASES, ids=lambda value: getattr(value, "loss", value))
layouts = pytest.mark.parametrize("layout", ["grouped", "packed"])
DATA = ring_data(users=90, rings=12)
"""More items than a step of eight users names."""


def _config(**changes: object) -> TrainConfig:
    defaults: dict[str, object] = {"encoder": STILL, "batch_size": 8, "padding": "ignored", "item_updates": "lazy"}
    return tiny_config(**(defaults | changes))


def _run(config: TrainConfig, layout: str, folder: Path) -> Run:
    run = Run(DATA, config, CPU)
    if layout == "packed":
        run.steps = packed_steps(DATA, config)
        run.items = LazyItems(run.model, config.learning_rate, ALONE, fixed_shapes=True)
    run.begin(folder)
    return run


def _steps(steps: Steps) -> Iterator[tuple[object, Step]]:
    """Each step of an epoch, as `take` wants it and as it is."""
    for given in steps.epoch(0):
        if isinstance(given, Step):
            yield given, given
        else:
            cursor = steps._cursor.clone()
            with torch.random.fork_rng():
                step = steps.next_step(given)
            steps._cursor.copy_(cursor)
            yield given, step


def _named(step: Step) -> Tensor:
    """The items that a step reads, without those in positions that a fixed shape leaves unused."""
    used = slice(None) if step.weights_M is None else step.weights_M != 0
    drawn = []
    if step.negatives is not None:
        drawn = [step.negatives.items[used] if step.negatives.log_counts is None else step.negatives.items]
    return torch.cat([step.rows.items_N, step.targets_M[used], *drawn]).unique()


def _gradient(run: Run, config: TrainConfig, step: Step) -> Tensor:
    """That of the whole table."""
    losses = Objective(config).losses(run.model, step)
    table = run.model.own_vectors
    return torch.autograd.grad(torch.stack(list(losses.values())).sum(), table)[0].double()


@layouts
@cases
def test_named_rows_move_as_adam_moves_them_and_all_others_stay(
    tmp_path: Path, objective: str, next_item: NextItemConfig, layout: str
) -> None:
    config = _config(objective=objective, next_item=next_item)
    run = _run(config, layout, tmp_path)
    table = run.model.own_vectors
    first, second, standing = torch.zeros(table.shape).double(), torch.zeros(table.shape).double(), 0
    for taken, (given, step) in enumerate(_steps(run.steps), start=1):
        gradient, named, expected = _gradient(run, config, step)[_named(step)], _named(step), table.detach().double()
        first[named] = 0.9 * first[named] + 0.1 * gradient
        second[named] = 0.999 * second[named] + 0.001 * gradient**2
        spread = (second[named] / (1 - 0.999**taken)).sqrt() + 1e-8
        expected[named] -= config.learning_rate * first[named] / (1 - 0.9**taken) / spread
        before = table.detach().clone()
        run.take(given)
        others = torch.ones(len(table), dtype=torch.bool).index_fill_(0, named, value=False)
        assert torch.equal(table[others], before[others])
        standing += int(others.sum())
        # Where a gradient is nothing but rounding, Adam makes a step of its sign.
        told = gradient.abs() > 1e-7
        torch.testing.assert_close(table[named].double()[told], expected[named][told], rtol=0, atol=2e-5)
    assert standing
    assert not table[0].any()


@layouts
def test_the_average_equals_one_that_is_kept_at_every_step(tmp_path: Path, layout: str) -> None:
    config = _config(averaging=0.7, learning_rate=0.05)
    run, expected = _run(config, layout, tmp_path), {}
    # A warm start lays other vectors over those that the average was made of.
    with torch.no_grad():
        run.model.own_vectors[1:] += 1
    taken = 0
    for _ in range(2):
        for given, _ in _steps(run.steps):
            run.take(given)
            kept = min(0.7, (1 + taken) / (10 + taken)) if taken else 0.0
            for name, weight in run.model.named_parameters():
                expected[name] = kept * expected.get(name, 0.0) + (1 - kept) * weight.detach().double()
            taken += 1
        run.candidate()  # an average that was looked at goes on
    for name, weight in run.average.module.named_parameters():
        if not name.startswith("intents."):  # on the unit sphere
            torch.testing.assert_close(weight.double(), expected[name], rtol=0, atol=1e-5)


def test_a_step_of_fixed_shapes_asks_for_no_value() -> None:
    config = _config(next_item=NextItemConfig(loss="sampled_softmax", samples=8))
    step = grouped_epoch(DATA, config)[0]
    meta = torch.device("meta")
    with meta:
        model = SequenceModel(config.model, DATA.num_items)
        items = LazyItems(model, 1e-3, ALONE, fixed_shapes=True)
    named, places = items._named(_on(step, meta))
    assert len(named) == len(places) == 1 + len(step.rows.items_N) + len(step.targets_M) + 8
    read = torch.nn.Parameter(model.item_embeddings()[named])
    read.grad = torch.ones_like(read)
    with torch.no_grad():
        items._moved(named, read)


def _on(step: Step, device: torch.device) -> Step:
    negatives = step.negatives._replace(items=step.negatives.items.to(device))
    rows = replace(step.rows, items_N=step.rows.items_N.to(device))
    return replace(step, rows=rows, targets_M=step.targets_M.to(device), negatives=negatives)


@pytest.mark.slow
def test_lazy_updates_learn_rings_that_popularity_cannot(tmp_path: Path) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    sampled = NextItemConfig(loss="sampled_softmax", samples=8)
    config = _config(encoder=encoder, epochs=25, learning_rate=0.01, next_item=sampled, averaging=0.9, batch_size=32)
    assert fit(ring_data(400), config, tmp_path).valid["ndcg@5"] > 0.8


def test_a_step_that_fails_leaves_the_whole_table_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(_config(), "grouped", tmp_path)
    table = run.model.own_vectors
    monkeypatch.setattr(run, "_losses", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.take(next(run.steps.epoch(0)))
    assert run.model.encoder.item_embedding.weight is table
