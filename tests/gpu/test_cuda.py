"""A GPU computes what the CPU does, and training does not wait for it inside an epoch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.elcrec import SequenceModel
from elcrec.training.batches import TrainingData
from elcrec.training.loop import _Run, fit
from tests.unit.training.helpers import ring_data, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
UNDROPPED = EncoderConfig(window=8, hidden_size=16, num_blocks=2, hidden_dropout=0, attention_dropout=0)
OBJECTIVES = [
    ("elcrec", NextItemConfig()),
    ("iclrec", NextItemConfig()),
    ("sasrec", NextItemConfig(loss="softmax")),
    ("sasrec", NextItemConfig(loss="softmax", prefixes=True)),
    ("sasrec", NextItemConfig(loss="sampled_softmax")),
]


def _losses_and_gradients(config: TrainConfig, device: torch.device) -> dict[str, torch.Tensor]:
    """Losses of the first step and its gradients, from the same weights and draws on either device."""
    data = ring_data()
    torch.manual_seed(1)
    model = SequenceModel(config, data.num_items).to(device)
    batch = next(TrainingData(data, config).epoch(torch.Generator().manual_seed(1), device))
    losses = model.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {f"gradient of {name}": weight.grad for name, weight in model.named_parameters()}
    return {name: tensor.detach().cpu() for name, tensor in (losses | gradients).items() if tensor is not None}


@pytest.mark.parametrize(("objective", "next_item"), OBJECTIVES)
def test_losses_and_gradients_are_those_of_the_cpu(objective: str, next_item: NextItemConfig) -> None:
    config = tiny_config(objective=objective, next_item=next_item, encoder=UNDROPPED)
    ours, theirs = (_losses_and_gradients(config, device) for device in (CUDA, CPU))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


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


@pytest.mark.parametrize(("objective", "next_item"), OBJECTIVES)
def test_the_host_never_waits_inside_an_epoch(objective: str, next_item: NextItemConfig, tmp_path: Path) -> None:
    config = tiny_config(objective=objective, next_item=next_item, averaging=0.9, device="cuda")
    data = ring_data()
    run = _Run(data, config, TrainingData(data, config), CUDA)
    run.resume(tmp_path)
    run.model.train()
    with _waits() as waits:
        steps = [run._step(batch) for batch in run.batches.epoch(torch.Generator().manual_seed(1), CUDA)]
    assert not waits
    assert all(np.isfinite(loss) for loss in run._mean(steps).values())


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
