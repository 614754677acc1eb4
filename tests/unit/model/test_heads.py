import numpy as np
import pytest
import torch
from torch.nn import functional as F

from elcrec.config import EncoderConfig, NextItemConfig, TrainConfig
from elcrec.data.ragged import Ragged
from elcrec.model.heads import Cosine
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.objective import Objective
from tests.unit.training.helpers import grouped_epoch, ring_data, tiny_config


def test_a_cosine_head_scores_by_the_angle_over_its_temperature_whatever_the_lengths() -> None:
    torch.manual_seed(0)
    head, states, items = Cosine(), torch.randn(3, 4), torch.randn(5, 4)
    head.log_scale.data.fill_(np.log(2.0))

    scores = head.queries(3 * states) @ head.items(items / 7).T

    angles = [[np.dot(s, i) / np.linalg.norm(s) / np.linalg.norm(i) for i in items.numpy()] for s in states.numpy()]
    np.testing.assert_allclose(scores.detach(), 2 * np.array(angles), rtol=1e-5, atol=1e-6)
    assert torch.equal(head.items(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_the_gradient_of_unit_vectors_is_that_of_pytorch() -> None:
    ours, theirs = (torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    weights = torch.randn(7, 5)

    for units, vectors in ((Cosine().items(ours), ours), (F.normalize(theirs, dim=1), theirs)):
        (units * weights).sum().backward()
        assert vectors.grad is not None

    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("objective", ["sasrec", "elcrec2"])
def test_a_model_ranks_by_the_cosine_that_it_was_trained_with(objective: str) -> None:
    config = tiny_config(objective=objective, head="cosine")
    model = SequenceModel(config.model, num_items=9)
    vectors, items = model.encode(Ragged.from_rows([[1, 2, 3]])).vectors, model.item_vectors()

    torch.testing.assert_close(items[1:].norm(dim=1), torch.ones(9))
    torch.testing.assert_close(vectors.norm(), model.head.log_scale.exp().detach())


def _next_item(dropouts: int, rate: float) -> float:
    """L_next of a step under one set of weights; the encoder itself drops nothing."""
    config: TrainConfig = tiny_config(
        objective="sasrec",
        head="cosine",
        encoder=EncoderConfig(window=5, hidden_size=8, num_blocks=1, hidden_dropout=0.0, attention_dropout=0.0),
        next_item=NextItemConfig(loss="softmax", dropouts=dropouts),
    )
    torch.manual_seed(1)
    model = SequenceModel(config.model, num_items=ring_data().num_items).train()
    model.encoder.dropout.p = rate
    step = grouped_epoch(ring_data(), config)[0]
    torch.manual_seed(2)
    return Objective(config).losses(model, step)["next_item"].item()


def test_several_dropouts_of_a_state_are_averaged() -> None:
    assert _next_item(4, rate=0.0) == pytest.approx(_next_item(0, rate=0.0), rel=1e-6)
    one, many = _next_item(1, rate=0.5), _next_item(64, rate=0.5)
    assert one != pytest.approx(many, rel=1e-6)
