"""The gradient of our lookup for GPUs equals that of PyTorch's own lookup."""

import pytest
import torch
from torch.nn import functional as F

from elcrec.ops.lookup import SummedLookup, look_up


@pytest.mark.parametrize("padding", [None, 0])
def test_rows_and_gradient_are_those_of_an_embedding(padding: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(7, (40,), generator=generator)
    weights = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    ours, theirs = SummedLookup.apply(table, indices, padding), F.embedding(indices, table, padding_idx=padding)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad((rows * weights).sum(), table)[0] for rows in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert bool(gradients[0][0].any()) == (padding is None)


def test_a_processor_keeps_its_own_lookup() -> None:
    table = torch.randn(7, 3, requires_grad=True)
    assert "Embedding" in type(look_up(table, torch.tensor([1, 1])).grad_fn).__name__
