"""What test_equations.py, which holds whole steps against the equations, is too small to show."""

import torch
from torch.nn import functional as F

from elcrec.data.ragged import Ragged
from elcrec.model.elcrec import batch_of
from elcrec.model.losses import next_item_loss, sequence_similarities


def test_next_item_loss_keeps_its_gradient_where_the_sigmoid_saturates() -> None:
    states = torch.tensor([[200.0]], requires_grad=True)
    next_item_loss(states, -torch.ones(1, 1), torch.zeros(1, 1)).backward()
    assert states.grad.item() == 1.0


def test_sequence_similarities_of_many_lengths_equal_the_product_of_padded_flattened_states() -> None:
    lengths, window = (1, 7, 3, 3, 50, 12, 2, 5, 9, 31), 50
    batch = batch_of(Ragged.from_rows([[1] * length for length in lengths]))
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(sum(lengths), 4, generator=generator, dtype=torch.float64).requires_grad_()
    rows = states.split(list(lengths))
    flat = torch.stack([F.pad(row, (0, 0, window - len(row), 0)).flatten() for row in rows])
    plain, fast = flat @ flat.T, sequence_similarities(states, batch)
    torch.testing.assert_close(fast, plain)
    weights = torch.randn(10, 10, generator=generator, dtype=torch.float64)
    (slow_gradient,) = torch.autograd.grad((plain * weights).sum(), states, retain_graph=True)
    (fast_gradient,) = torch.autograd.grad((fast * weights).sum(), states)
    torch.testing.assert_close(fast_gradient, slow_gradient)
