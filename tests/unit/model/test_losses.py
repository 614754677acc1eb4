import numpy as np
import torch
from torch.nn import functional as F

from elcrec.data.ragged import Ragged
from elcrec.model.elcrec import batch_of, pool
from elcrec.model.grouping import GroupedBatch
from elcrec.model.losses import (
    cluster_loss,
    info_nce,
    intent_loss,
    next_item_loss,
    sequence_similarities,
    view_similarities,
)
from tests.unit.model.reference import flattened_similarities

GENERATOR = torch.Generator().manual_seed(0)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_cluster_loss_equals_the_mean_over_all_pairs_in_value_and_gradient() -> None:
    pooled, centers = F.normalize(_random(7, 5), dim=1), F.normalize(_random(4, 5), dim=1).requires_grad_()
    pairs = (pooled[:, None] - centers[None]).square().sum(2).mean()
    between = (centers[:, None] - centers[None]).square().sum(2).mean()
    (plain,) = torch.autograd.grad(pairs - between, centers)
    (fast,) = torch.autograd.grad(cluster_loss(pooled, centers), centers)
    torch.testing.assert_close(cluster_loss(pooled, centers), pairs - between)
    torch.testing.assert_close(fast, plain)


def test_cluster_loss_of_unit_vectors_depends_on_the_two_means_alone() -> None:
    pooled, centers = F.normalize(_random(9, 6), dim=1), F.normalize(_random(5, 6), dim=1)
    mean_center = centers.mean(0)
    identity = 2 * mean_center @ mean_center - 2 * pooled.mean(0) @ mean_center
    torch.testing.assert_close(cluster_loss(pooled, centers), identity)


def test_next_item_loss_equals_binary_cross_entropy_over_positions() -> None:
    states, positives, negatives = _random(6, 4), _random(6, 4), _random(6, 4)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731 - a formula
    right = sigmoid((states * positives).sum(1).numpy())
    wrong = sigmoid((states * negatives).sum(1).numpy())
    expected = -(np.log(right) + np.log(1 - wrong)).mean()
    loss = next_item_loss(states, positives, negatives)
    np.testing.assert_allclose(loss.item(), expected)


def test_next_item_loss_keeps_its_gradient_where_the_sigmoid_saturates() -> None:
    states = torch.tensor([[200.0]], requires_grad=True)
    next_item_loss(states, -torch.ones(1, 1), torch.zeros(1, 1)).backward()
    assert states.grad.item() == 1.0


def test_info_nce_equals_the_sum_written_out() -> None:
    views, partner, temperature = _random(6, 3), [3, 4, 5, 0, 1, 2], 0.7
    terms = []
    for row in range(6):
        scores = {other: float(views[row] @ views[other]) / temperature for other in range(6) if other != row}
        terms.append(np.log(sum(np.exp(score) for score in scores.values())) - scores[partner[row]])
    loss = info_nce(views @ views.T, torch.tensor(partner), temperature)
    np.testing.assert_allclose(loss.item(), np.mean(terms))


def test_intent_loss_contrasts_each_view_with_its_centre() -> None:
    views, centers = _random(4, 3), _random(4, 3)
    both = torch.cat((views, centers))
    expected = info_nce(both @ both.T, torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]), 1.0)
    torch.testing.assert_close(intent_loss(views, centers, 1.0), expected)


def _rows(*lengths: int) -> tuple[GroupedBatch, torch.Tensor]:
    batch = batch_of(Ragged.from_rows([[1] * length for length in lengths]), torch.device("cpu"))
    return batch, _random(sum(lengths), 4).requires_grad_()


def test_sequence_similarities_equal_the_product_of_padded_flattened_states() -> None:
    batch, states = _rows(1, 7, 3, 3, 50, 12, 2, 5, 9, 31)
    plain = flattened_similarities(list(states.split(batch.lengths_B.tolist())), 50)
    fast = sequence_similarities(states, batch)
    torch.testing.assert_close(fast, plain)
    weights = _random(10, 10)
    (slow_gradient,) = torch.autograd.grad((plain * weights).sum(), states, retain_graph=True)
    (fast_gradient,) = torch.autograd.grad((fast * weights).sum(), states)
    torch.testing.assert_close(fast_gradient, slow_gradient)


def _filled(states: torch.Tensor, batch: GroupedBatch, padding: torch.Tensor) -> torch.Tensor:
    """Windows with the states of padding before each row's own, [B, T, D]."""
    rows = states.split(batch.lengths_B.tolist())
    return torch.stack([torch.cat((padding[: len(padding) - len(row)], row)) for row in rows])


def test_view_similarities_equal_windows_filled_up_with_the_states_of_padding() -> None:
    (batch, states), window = _rows(1, 4, 3, 6, 2, 6), 6
    padding = _random(window, 4)
    full = _filled(states, batch, padding).flatten(1)
    fast = view_similarities(states, batch, padding, window)
    torch.testing.assert_close(fast + padding.square().sum() / window, full @ full.T / window)


def test_pooling_over_the_window_counts_the_states_of_padding() -> None:
    batch, states = _rows(4, 1, 6, 2)
    padding = _random(6, 4)
    torch.testing.assert_close(pool(states, batch, padding), _filled(states, batch, padding).mean(1))


def test_pooling_is_the_mean_over_the_items_of_each_row() -> None:
    batch, states = _rows(4, 1, 7, 2)
    rows = states.split(batch.lengths_B.tolist())
    torch.testing.assert_close(pool(states, batch), torch.stack([row.mean(0) for row in rows]))
