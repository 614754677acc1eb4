import pytest
import torch

from elcrec.ops.dropout import Dropout, dropout_masks


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_masks_drop_the_share_they_should_and_keep_the_mean(p: float) -> None:
    torch.manual_seed(0)
    first, second = dropout_masks([(400, 50), (30, 3, 7)], p)
    assert (first.shape, second.shape) == ((400, 50), (30, 3, 7))
    assert (first == 0).double().mean().item() == pytest.approx(p, abs=0.015)
    assert first.mean().item() == pytest.approx(1, abs=0.05)
    assert len(first.unique()) == 2


@pytest.mark.parametrize("p", [1e-6, 1 - 1e-6])
def test_an_extreme_probability_still_drops_some_and_keeps_some(p: float) -> None:
    torch.manual_seed(0)
    (mask,) = dropout_masks([(100_000,)], p)
    assert 0 < (mask == 0).sum() < 100_000


def test_elements_are_dropped_independently() -> None:
    torch.manual_seed(0)
    (mask,) = dropout_masks([(20_000, 16)], 0.5)
    correlations = torch.corrcoef(mask.T) - torch.eye(16)
    assert correlations.abs().max() < 0.04


def test_dropout_passes_the_gradient_of_what_it_kept_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    dropout, states = Dropout(0.5), torch.ones(50, 4, requires_grad=True)
    dropped = dropout(states)
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())
    assert torch.equal(dropout.eval()(states), states)


def test_the_default_generator_decides() -> None:
    def draw() -> torch.Tensor:
        torch.manual_seed(3)
        return Dropout(0.5)(torch.ones(64))

    assert torch.equal(draw(), draw())
