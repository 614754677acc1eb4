"""What `train.compile` does, as far as a machine without a GPU can show it; the rest is in tests/gpu."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from elcrec.config import EncoderConfig
from elcrec.errors import UserError
from elcrec.model.elcrec import SequenceModel, TrainingBatch
from elcrec.training.batches import TrainingData
from elcrec.training.compilation import compiled
from elcrec.training.resident import ResidentData
from tests.unit.training.helpers import ring_data, tiny_config


@pytest.fixture
def batch() -> TrainingBatch:
    config = tiny_config()
    return next(TrainingData(ring_data(), config).epoch(torch.Generator(), torch.device("cpu")))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("default")
def test_compiled_losses_and_gradients_are_those_of_the_plain_ones() -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0, attention_dropout=0)
    config, data = tiny_config(encoder=encoder), ring_data()
    resident = ResidentData(TrainingData(data, config), config, torch.device("cpu"))
    resident.begin_epoch()
    model = SequenceModel(config, data.num_items)
    whole = compiled(model.losses, config.batch_size)
    for count in resident.epoch():
        batch, both = resident.next_batch(count), []
        for losses in (model.losses(batch), whole(batch)):
            gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(model.parameters()))
            both.append((losses, gradients))
        torch.testing.assert_close(both[1], both[0])


def _losses(batch: TrainingBatch) -> dict[str, Tensor]:
    return {"next_item": torch.tensor(float(batch.num_sequences))}


def _broken(_: object, **_options: object) -> object:
    def call(_batch: TrainingBatch) -> dict[str, Tensor]:
        raise TorchDynamoException("no compiler\nand a long story")

    return call


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch, batch: TrainingBatch) -> None:
    monkeypatch.setattr(torch, "compile", _broken)
    with pytest.raises(UserError, match=r"torch\.compile failed: no compiler; install a C compiler"):
        compiled(_losses, batch.num_sequences)(batch)


def test_a_smaller_last_step_is_not_compiled(monkeypatch: pytest.MonkeyPatch, batch: TrainingBatch) -> None:
    monkeypatch.setattr(torch, "compile", _broken)
    assert compiled(_losses, batch.num_sequences)(replace(batch, num_sequences=5))["next_item"] == 5
