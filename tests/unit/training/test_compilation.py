"""What `train.compile` does on a machine without a GPU; what it computes is tested on one (tests/gpu)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from elcrec.errors import UserError
from elcrec.model.elcrec import TrainingBatch
from elcrec.training.batches import TrainingData
from elcrec.training.compilation import compiled
from tests.unit.training.helpers import ring_data, tiny_config


@pytest.fixture
def batch() -> TrainingBatch:
    config = tiny_config()
    return next(TrainingData(ring_data(), config).epoch(torch.Generator(), torch.device("cpu")))


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
