"""A GPU computes what the CPU does, and training does not wait for it inside an epoch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.compilation import compiled
from elcrec.training.data import TrainingData
from elcrec.training.distributed import ALONE
from elcrec.training.grouped_steps import GroupedSteps
from elcrec.training.loop import Run, fit
from elcrec.training.objective import Objective
from elcrec.training.packed_steps import PackedSteps
from elcrec.training.recording import Recorder
from elcrec.training.step import Step
from tests.unit.training.helpers import new_model, ring_data, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
UNDROPPED = EncoderConfig(window=8, hidden_size=16, num_blocks=2, hidden_dropout=0, attention_dropout=0)
OBJECTIVES: list[tuple[str, NextItemConfig]] = [
    ("elcrec", NextItemConfig()),
    ("iclrec", NextItemConfig()),
    ("sasrec", NextItemConfig(loss="softmax")),
    ("sasrec", NextItemConfig(loss="softmax", prefixes=True)),
    ("sasrec", NextItemConfig(loss="sampled_softmax")),
    ("elcrec2", NextItemConfig(loss="softmax")),
]


def _losses_and_gradients(config: TrainConfig, device: torch.device) -> dict[str, torch.Tensor]:
    """Losses of the first step and its gradients, from the same weights and draws on either device."""
    data = ring_data()
    torch.manual_seed(1)
    model, objective = new_model(data, config).to(device), Objective(config)
    steps = GroupedSteps(TrainingData(data, config), config, objective.needs, device, ALONE)
    losses = objective.losses(model, next(steps.epoch(1)))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {f"gradient of {name}": weight.grad for name, weight in model.named_parameters()}
    return {name: tensor.detach().cpu() for name, tensor in (losses | gradients).items() if tensor is not None}


@pytest.mark.parametrize(("objective", "next_item"), OBJECTIVES)
def test_losses_and_gradients_are_those_of_the_cpu(objective: str, next_item: NextItemConfig) -> None:
    config = tiny_config(objective=objective, next_item=next_item, encoder=UNDROPPED)
    ours, theirs = (_losses_and_gradients(config, device) for device in (CUDA, CPU))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_ranks_and_best_items_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    # Small integers: products are exact on either device, and tie often.
    users, items = (torch.randint(-3, 4, (rows, 8), generator=generator).float() for rows in (300, 5001))
    histories = Ragged.from_rows([[1 + user, 4000 - user] for user in range(300)])
    targets = np.arange(1, 301) * 7
    ours, theirs = (rank_targets(users.to(device), items.to(device), histories, targets) for device in (CUDA, CPU))
    np.testing.assert_array_equal(ours.ranks, theirs.ranks)
    # Which of several equal items comes first is the device's to say; their scores are not.
    scores = (users @ items.T).numpy()
    both = [np.take_along_axis(scores, ranking.top_items.astype(np.int64), 1) for ranking in (ours, theirs)]
    np.testing.assert_array_equal(*both)


@contextmanager
def _waits() -> Iterator[list[str]]:
    """What PyTorch says each time that the host waits."""
    waits: list[str] = []
    with warnings.catch_warnings(record=True, action="always") as caught:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits += [text for text in (str(warning.message) for warning in caught) if "called a synchronizing" in text]


def _moved(value: Any, device: torch.device) -> Any:
    """A step with all that it holds, on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if is_dataclass(value):
        fields = {field: _moved(part, device) for field, part in vars(value).items()}
        return type(value)(**fields)
    return value


def _first_step(config: TrainConfig) -> tuple[Step, SequenceModel, Objective]:
    """A step that the GPU assembled, and a model on the CPU."""
    data, objective = ring_data(), Objective(config)
    steps = PackedSteps(TrainingData(data, config), config, objective.needs, CUDA)
    step = steps.next_step(next(steps.epoch(1)))
    torch.manual_seed(1)
    return step, SequenceModel(config.model, data.num_items), objective


def _require_the_losses_of_the_cpu(config: TrainConfig) -> None:
    step, model, objective = _first_step(config)
    theirs = objective.losses(model, _moved(step, CPU))
    ours = objective.losses(model.to(CUDA), step)
    torch.testing.assert_close({name: loss.cpu() for name, loss in ours.items()}, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("objective", "next_item"), OBJECTIVES)
def test_a_step_that_the_gpu_assembles_has_the_losses_of_the_cpu(objective: str, next_item: NextItemConfig) -> None:
    _require_the_losses_of_the_cpu(tiny_config(objective=objective, next_item=next_item, encoder=UNDROPPED))


def test_a_step_with_encoded_padding_has_the_losses_of_the_cpu_and_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _require_the_losses_of_the_cpu(tiny_config(encoder=UNDROPPED, padding="encoded"))
    run = _run(tiny_config(padding="encoded", device="cuda"), tmp_path)
    for seed in range(1, 7):
        _epoch(run, seed)
    assert not caplog.records, "recording failed"


def _run(config: TrainConfig, folder: Path) -> Run:
    run = Run(ring_data(), config, CUDA)
    run.begin(folder)
    run.model.train()
    return run


def _packed(run: Run) -> PackedSteps:
    assert isinstance(run.steps, PackedSteps)
    return run.steps


def _epoch(run: Run, seed: int) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    with run.steps.running():
        counts = run.steps.epoch(seed)
        first = next(counts)  # what is drawn for an epoch is waited for
        with _waits() as waits:
            steps = [run.take(count) for count in (first, *counts)]
    # The last step, shorter than the others, is recorded in the fourth epoch.
    assert seed <= 4 or not waits
    return steps


@pytest.mark.parametrize(("objective", "next_item"), OBJECTIVES)
def test_steps_are_replayed_and_the_host_never_waits_inside_an_epoch(
    objective: str, next_item: NextItemConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(objective=objective, next_item=next_item, averaging=0.9, device="cuda")
    run = _run(config, tmp_path)
    epochs = [run.mean(_epoch(run, seed)) for seed in range(1, 7)]
    assert not caplog.records, "recording failed"
    assert _packed(run)._recorder._recorded
    assert all(np.isfinite(loss) for epoch in epochs for loss in epoch.values())


def test_compiled_losses_and_gradients_are_those_of_the_plain_ones() -> None:
    step, model, objective = _first_step(tiny_config(encoder=UNDROPPED))
    both, plain = [], partial(objective.losses, model.to(CUDA))
    for losses in (plain(step), compiled(plain, step.num_sequences)(step)):
        gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(model.parameters()))
        both.append((losses, gradients))
    torch.testing.assert_close(both[1], both[0], rtol=1e-4, atol=1e-5)


def test_compiled_steps_are_recorded_and_make_new_draws(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = _run(tiny_config(device="cuda", compile=True), tmp_path)
    for seed in (1, 2, 3):
        _epoch(run, seed)
    losses = [float(step["loss"]) for step in _epoch(run, 4)]
    assert len(set(losses)) == len(losses)
    assert not [record for record in caplog.records if record.name.startswith("elcrec")], "recording failed"
    assert _packed(run)._recorder._recorded


def test_work_that_cannot_be_recorded_runs_directly(caplog: pytest.LogCaptureFixture) -> None:
    recorder, total = Recorder(CUDA), torch.zeros((), device=CUDA)

    def work() -> dict[str, torch.Tensor]:
        total.add_(1)
        assert float(total) > 0  # asks the device for a value
        return {"total": total.clone()}

    with recorder.running():
        totals = [recorder.run("counting", work)["total"] for _ in range(6)]
    assert [float(one) for one in totals] == [1, 2, 3, 4, 5, 6]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    first, second = torch.rand(2, 8, device=CUDA)
    assert not torch.equal(first, second), "the generator of the device is of no use after a failed recording"


def test_replayed_steps_make_new_draws_and_update_the_weights(tmp_path: Path) -> None:
    run = _run(tiny_config(device="cuda"), tmp_path)
    for seed in (1, 2, 3):
        _epoch(run, seed)
    before = [weight.clone() for weight in run.model.parameters()]
    losses = [float(step["loss"]) for step in _epoch(run, 4)]
    assert len(set(losses)) == len(losses)
    assert all(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


def test_the_host_waits_at_the_end_of_a_ranking_alone() -> None:
    users, items = torch.randn(300, 8, device=CUDA), torch.randn(5001, 8, device=CUDA)
    histories = Ragged.from_rows([[1 + user] for user in range(300)])
    with _waits() as waits:
        rank_targets(users, items, histories, np.arange(1, 301))
    assert len(waits) == 2  # the ranks and the best items, at the end


def test_a_model_learns_rings_that_popularity_cannot(tmp_path: Path) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0.1, attention_dropout=0.1)
    config = tiny_config(encoder=encoder, epochs=40, learning_rate=0.01, device="cuda")
    assert fit(ring_data(400), config, tmp_path).valid["ndcg@5"] > 0.8
