import numpy as np
import torch
from torch.nn import functional as F

from elcrec.data.ragged import Ragged
from elcrec.model.elcrec import batch_of, pool
from elcrec.model.grouping import positions_of
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


def test_next_item_loss_equals_binary_cross_entropy_over_real_positions() -> None:
    states, positives, negatives = _random(6, 4), _random(6, 4), _random(6, 4)
    real = np.array([True, True, False, True, False, True])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731 - a formula
    right = sigmoid((states * positives).sum(1).numpy()[real])
    wrong = sigmoid((states * negatives).sum(1).numpy()[real])
    expected = -(np.log(right) + np.log(1 - wrong)).mean()
    loss = next_item_loss(states, positives, negatives, torch.from_numpy(real).double())
    np.testing.assert_allclose(loss.item(), expected)


def test_next_item_loss_keeps_its_gradient_where_the_sigmoid_saturates() -> None:
    states = torch.tensor([[200.0]], requires_grad=True)
    next_item_loss(states, -torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1)).backward()
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


def test_sequence_similarities_equal_the_product_of_padded_flattened_states() -> None:
    lengths = torch.tensor([1, 7, 3, 3, 50, 12, 2, 5, 9, 31])
    batch = batch_of(Ragged.from_rows([[1] * int(length) for length in lengths]), torch.device("cpu"))
    states = _random(batch.layout.size, 4).requires_grad_()
    masked = states * batch.real_N[:, None]
    rows = masked[positions_of(batch.layout, lengths)].split(lengths.tolist())
    slot = batch.layout.slot_B
    plain = flattened_similarities(list(rows), 50)
    fast = sequence_similarities(masked, batch.layout)[slot][:, slot]
    torch.testing.assert_close(fast, plain)
    weights = _random(10, 10)
    (slow_gradient,) = torch.autograd.grad((plain * weights).sum(), states, retain_graph=True)
    (fast_gradient,) = torch.autograd.grad((fast * weights).sum(), states)
    torch.testing.assert_close(fast_gradient, slow_gradient)


def test_view_similarities_equal_windows_filled_up_with_the_states_of_padding() -> None:
    lengths, window = torch.tensor([1, 4, 3, 6, 2, 6]), 6
    batch = batch_of(Ragged.from_rows([[1] * int(length) for length in lengths]), torch.device("cpu"))
    states, padding = _random(batch.layout.size, 4), _random(window, 4)
    rows = states[positions_of(batch.layout, lengths)].split(lengths.tolist())
    full = torch.stack([torch.cat((padding[: window - len(row)], row)).flatten() for row in rows])
    slot = batch.layout.slot_B
    fast = view_similarities(states, batch, padding, window)[slot][:, slot]
    torch.testing.assert_close(fast + padding.square().sum() / window, full @ full.T / window)


def test_pooling_over_the_window_counts_the_states_of_padding() -> None:
    lengths, window = torch.tensor([4, 1, 6, 2]), 6
    batch = batch_of(Ragged.from_rows([[1] * int(length) for length in lengths]), torch.device("cpu"))
    states, padding = _random(batch.layout.size, 3), _random(window, 3)
    rows = states[positions_of(batch.layout, lengths)].split(lengths.tolist())
    full = torch.stack([torch.cat((padding[: window - len(row)], row)).mean(0) for row in rows])
    torch.testing.assert_close(pool(states, batch, padding), full)


def test_pooling_is_the_mean_over_real_positions_in_the_order_of_the_rows() -> None:
    lengths = torch.tensor([4, 1, 7, 2])
    batch = batch_of(Ragged.from_rows([[1] * int(length) for length in lengths]), torch.device("cpu"))
    states = _random(batch.layout.size, 3)
    rows = states[positions_of(batch.layout, lengths)].split(lengths.tolist())
    torch.testing.assert_close(pool(states, batch), torch.stack([row.mean(0) for row in rows]))
