"""What `train.compile` does, as far as a machine without a GPU can show it; the rest is in tests/gpu."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from elcrec.config import EncoderConfig, IntentConfig
from elcrec.errors import UserError
from elcrec.training.compilation import compiled
from elcrec.training.objective import Objective
from elcrec.training.step import Step
from tests.unit.training.helpers import grouped_epoch, new_model, packed_epoch, ring_data, tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture
def step() -> Step:
    return grouped_epoch(ring_data(), tiny_config())[0]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("objective", "head"), [("elcrec", "dot"), ("elcrec2", "cosine")])
def test_compiled_losses_and_gradients_are_those_of_the_plain_ones(objective: str, head: str) -> None:
    encoder = EncoderConfig(window=8, hidden_size=16, num_blocks=1, hidden_dropout=0, attention_dropout=0)
    intents = IntentConfig(num_intents=4, spread=0.5)
    config, data = tiny_config(objective=objective, encoder=encoder, head=head, intents=intents), ring_data()
    model = new_model(data, config)
    plain = partial(Objective(config).losses, model)
    whole = compiled(plain, config.batch_size)
    for step in packed_epoch(data, config):
        both = []
        for losses in (plain(step), whole(step)):
            gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(model.parameters()))
            both.append((losses, gradients))
        torch.testing.assert_close(both[1], both[0])


def _losses(step: Step) -> dict[str, Tensor]:
    return {"next_item": torch.tensor(float(step.num_sequences))}


def _broken(_: object, **_options: object) -> object:
    def call(_step: Step) -> dict[str, Tensor]:
        raise TorchDynamoException("no compiler\nand a long story")

    return call


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    monkeypatch.setattr(torch, "compile", _broken)
    with pytest.raises(UserError, match=r"torch\.compile failed: no compiler; install a C compiler"):
        compiled(_losses, step.num_sequences)(step)


def test_a_smaller_last_step_is_not_compiled(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    monkeypatch.setattr(torch, "compile", _broken)
    assert compiled(_losses, step.num_sequences)(replace(step, num_sequences=5))["next_item"] == 5
