import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from elcrec.ops.losses import sampled_softmax_loss, softmax_loss
from elcrec.ops.negatives import NegativeSampler
from tests.unit.model.reference import sampled_softmax_losses, softmax_losses

MODERATE, LARGE = 1.0, 6.0
"""Scales of states and items: logits of a few units, which no maximum is taken off, and of hundreds."""


def _problem(
    positions: int = 7, items: int = 11, width: int = 5, scale: float = MODERATE, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """States, item vectors with a zero padding row, and targets; both tensors want a gradient."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(positions, width, generator=generator, dtype=torch.float64) * scale
    vectors = torch.randn(items + 1, width, generator=generator, dtype=torch.float64) * scale
    vectors[0] = 0
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    return states.to(dtype).requires_grad_(), vectors.to(dtype).requires_grad_(), targets


def _plain_lists(*tensors: Tensor) -> list[Any]:
    """What the reference reads: arrays of vectors, lists of items."""
    return [t.detach().numpy() if t.ndim == 2 else t.tolist() for t in tensors]


def _grads(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("scale", [MODERATE, LARGE])
def test_softmax_loss_equals_the_textbook(scale: float) -> None:
    states, items, targets = _problem(scale=scale)
    weights = torch.tensor([1, 0.5, 2, 1, 0.25, 3, 1], dtype=torch.float64)
    plain = softmax_loss(states, items, targets)
    weighted = softmax_loss(states, items, targets, weights_N=weights)
    expected = softmax_losses(*_plain_lists(states, items, targets))
    np.testing.assert_allclose(plain.item(), np.mean(expected))
    np.testing.assert_allclose(weighted.item(), np.average(expected, weights=weights))


@pytest.mark.parametrize("scale", [MODERATE, 3.0])
def test_softmax_gradients_equal_finite_differences(scale: float) -> None:
    states, items, targets = _problem(scale=scale)
    weights = torch.tensor([1, 0.5, 0, 1, 0.25, 3, 1], dtype=torch.float64)

    def loss(states: Tensor, items: Tensor) -> Tensor:
        return softmax_loss(states, items, targets, weights_N=weights, block=3)

    assert torch.autograd.gradcheck(loss, (states, items))


@pytest.mark.parametrize("robustness", [0.2, 1.0])
def test_a_robust_loss_is_that_of_the_cross_entropy_and_its_gradient_too(robustness: float) -> None:
    states, items, targets = _problem()
    weights = torch.tensor([1, 0.5, 0, 1, 0.25, 3, 1], dtype=torch.float64)

    def loss(states: Tensor, items: Tensor) -> Tensor:
        return softmax_loss(states, items, targets, weights_N=weights, block=3, robustness=robustness)

    probabilities = np.exp(-np.array(softmax_losses(*_plain_lists(states, items, targets))))
    expected = np.average((1 - probabilities**robustness) / robustness, weights=weights)
    np.testing.assert_allclose(loss(states, items).item(), expected)
    assert torch.autograd.gradcheck(loss, (states, items))


def test_a_robust_loss_nears_the_cross_entropy_and_is_finite_where_a_target_is_hopeless() -> None:
    states, items, targets = _problem(dtype=torch.float32)
    plain, nearly = (softmax_loss(states, items, targets, robustness=q) for q in (0.0, 1e-6))
    torch.testing.assert_close(nearly, plain, rtol=1e-4, atol=0)
    hopeless = softmax_loss(states * 1e4, items, targets, robustness=0.2)
    assert hopeless.isfinite()
    assert all(grad.isfinite().all() for grad in _grads(hopeless, states, items))


@pytest.mark.parametrize("scale", [0.3, 3.0, LARGE])
def test_softmax_in_single_precision_equals_cross_entropy_in_value_and_gradient(scale: float) -> None:
    states, items, targets = _problem(positions=301, items=997, width=16, scale=scale, dtype=torch.float32)
    plain = F.cross_entropy(states @ items[1:].T, targets - 1)
    fast = softmax_loss(states, items, targets)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(_grads(fast, states, items), _grads(plain, states, items), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [None, 1, 3, 64])
def test_the_block_changes_neither_loss_nor_gradient(block: int | None) -> None:
    states, items, targets = _problem()
    whole, blocked = (softmax_loss(states, items, targets, block=size) for size in (7, block))
    torch.testing.assert_close(blocked, whole)
    torch.testing.assert_close(_grads(blocked, states, items), _grads(whole, states, items))


def test_positions_of_weight_zero_are_not_looked_at() -> None:
    states, items, targets = _problem()
    weights = torch.tensor([1, 0, 1, 1, 0, 0, 1], dtype=torch.float64)
    targets[~(kept := weights.bool())] = 1
    loss = softmax_loss(states, items, targets, weights_N=weights)
    alone = softmax_loss(states[kept], items, targets[kept])
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(_grads(loss, states, items), _grads(alone, states, items))


def test_padding_is_never_scored_and_gets_no_gradient() -> None:
    states, items, targets = _problem()
    loss = softmax_loss(states, items, targets)
    with torch.no_grad():
        items[0] = 50.0
    louder = softmax_loss(states, items, targets)
    torch.testing.assert_close(louder, loss)
    assert (_grads(louder, items)[0][0] == 0).all()


def test_the_loss_keeps_its_value_and_gradient_where_exp_would_overflow() -> None:
    states, items, targets = _problem(scale=100.0, dtype=torch.float32)
    plain = F.cross_entropy(states @ items[1:].T, targets - 1)
    fast = softmax_loss(states, items, targets)
    assert plain > 1000
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(_grads(fast, states, items), _grads(plain, states, items))


def test_no_exponential_is_denormal_or_underflows() -> None:
    """Both cost a CPU a hundred times as long; a logit's distance from the largest is cut off before."""
    states, items, targets = _problem(scale=100.0, dtype=torch.float32)
    with _Watch() as watch:
        softmax_loss(states, items, targets)
    assert watch.least_exponent >= -60


def test_the_same_input_gives_the_same_bits() -> None:
    states, items, targets = _problem(positions=301, items=997, width=16, dtype=torch.float32)
    runs = [softmax_loss(states, items, targets) for _ in range(2)]
    gradients = [_grads(loss, states, items) for loss in runs]
    assert torch.equal(*runs)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_gradient_can_be_taken_twice_and_scales_with_what_follows() -> None:
    states, items, targets = _problem()
    loss = softmax_loss(states, items, targets)
    (once,) = torch.autograd.grad(loss, items, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, items)
    torch.testing.assert_close(thrice, 3 * once)


def _flop_counter() -> FlopCounterMode:
    """The counter of PyTorch, taught the accumulating product, which it would pass over."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _product_flops})


def _product_flops(_total: list[int], left: list[int], right: list[int], **_: object) -> int:
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize(("of_states", "of_items", "products"), [(1, 1, 3), (1, 0, 2), (0, 1, 2), (0, 0, 1)])
def test_each_logit_is_computed_once_and_no_unwanted_gradient(of_states: int, of_items: int, products: int) -> None:
    states, items, targets = _problem(positions=200, items=300)
    states.requires_grad_(bool(of_states))
    items.requires_grad_(bool(of_items))
    with _flop_counter() as counter:
        loss = softmax_loss(states, items, targets, block=32)
        if products > 1:
            loss.backward()  # type: ignore[no-untyped-call]
    assert counter.get_total_flops() == products * 2 * 200 * 300 * 5


def test_no_gradient_is_computed_under_no_grad() -> None:
    states, items, targets = _problem(positions=200, items=300)
    with torch.no_grad(), _flop_counter() as counter:
        softmax_loss(states, items, targets)
    assert counter.get_total_flops() == 2 * 200 * 300 * 5


def test_memory_grows_with_positions_by_their_states_and_not_by_their_logits() -> None:
    width, items, block = 8, 5000, 64
    few, many = (
        _peak(count, items, width, lambda *inputs: softmax_loss(*inputs, block=block)) for count in (500, 4000)
    )
    plain_few, plain_many = (_peak(count, items, width, _plain) for count in (500, 4000))
    assert few < 4 * (block + 4 * width) * items
    assert many - few < 4 * 8 * width * 3500
    assert plain_many - plain_few > 4 * items * 3500  # the ruler can tell


def _plain(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ items[1:].T, targets - 1)


def _peak(positions: int, items: int, width: int, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> int:
    inputs = _problem(positions, items, width, dtype=torch.float32)
    with _Watch() as watch:
        loss(*inputs).backward()  # type: ignore[no-untyped-call]
    return watch.peak


class _Watch(TorchDispatchMode):
    """Counts the bytes alive at once of what operations allocate; notes the least number that exp was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0
        self.least_exponent = math.inf

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.exp_.default:
            self.least_exponent = min(self.least_exponent, float(args[0].min()))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        self.live[key] = storage.nbytes()
        weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))


def test_with_products_in_bfloat16_the_loss_and_its_gradients_stay_in_single_precision() -> None:
    states, items, targets = _problem(positions=200, items=300, width=16, scale=0.7, dtype=torch.float32)
    exact = softmax_loss(states, items, targets, block=64)
    rough = softmax_loss(states, items, targets, block=64, products=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert rough != exact  # the products did run in bfloat16
    torch.testing.assert_close(rough, exact, rtol=1e-2, atol=0)
    for near, true in zip(_grads(rough, states, items), _grads(exact, states, items), strict=True):
        assert near.dtype == torch.float32
        assert (near - true).norm() < 0.02 * true.norm()


def _draws() -> tuple[Tensor, Tensor]:
    """Ten draws from eleven items, some of them targets and some repeated."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(1, 12, (10,), generator=generator), torch.randn(10, generator=generator, dtype=torch.float64)


def test_sampled_loss_equals_the_textbook_and_leaves_accidental_hits_out() -> None:
    states, items, targets = _problem()
    negatives, log_counts = _draws()
    assert (negatives == targets[:, None]).any()
    loss = sampled_softmax_loss(states, items, targets, negatives, log_counts)
    expected = sampled_softmax_losses(*_plain_lists(states, items, targets, negatives, log_counts))
    np.testing.assert_allclose(loss.item(), np.mean(expected))


@pytest.mark.parametrize("scale", [MODERATE, 3.0])
def test_sampled_gradients_equal_finite_differences(scale: float) -> None:
    states, items, targets = _problem(scale=scale)
    negatives, log_counts = _draws()
    weights = torch.tensor([1, 0.5, 0, 1, 0.25, 3, 1], dtype=torch.float64)

    def loss(states: Tensor, items: Tensor) -> Tensor:
        options = {"weights_N": weights, "block": 3}
        return sampled_softmax_loss(states, items, targets, negatives, log_counts, **options)

    assert torch.autograd.gradcheck(loss, (states, items))


def test_a_robust_sampled_loss_equals_the_textbook() -> None:
    (states, items, targets), (negatives, log_counts) = _problem(), _draws()
    loss = sampled_softmax_loss(states, items, targets, negatives, log_counts, robustness=0.3)
    plain = _plain_lists(states, items, targets, negatives, log_counts)
    probabilities = np.exp(-np.array(sampled_softmax_losses(*plain)))
    np.testing.assert_allclose(loss.item(), np.mean((1 - probabilities**0.3) / 0.3))


def test_a_position_whose_negatives_are_all_its_target_teaches_nothing() -> None:
    states, items, targets = _problem()
    negatives = targets[:1].repeat(4)
    loss = sampled_softmax_loss(states[:1], items, targets[:1], negatives, torch.zeros(4))
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in _grads(loss, states, items))


def _popular(items: int) -> Tensor:
    """Counts that fall as 1 / rank."""
    return (1000 / torch.arange(1, items + 1)).long()


def test_with_many_draws_the_corrected_loss_becomes_the_full_softmax_and_the_uncorrected_does_not() -> None:
    """Each draw estimates the sum with a relative variance of sum p^2 / q - 1, so the mean of S draws with 1/S of it.

    The standard deviation of a mean over positions is at most the mean of theirs; five of it are allowed.
    """
    size, vocabulary = 100_000, 40
    states, items, targets = _problem(positions=30, items=vocabulary)
    weights = _popular(vocabulary).double().pow(0.75)
    shares = (states @ items[1:].T).softmax(1).detach()
    variances = (shares.square() / (weights / weights.sum())).sum(1) - 1
    tolerance = 5 * (variances / size).sqrt().mean()

    sampler = NegativeSampler(_popular(vocabulary), size, 0.75)
    negatives, log_counts = sampler.draw(torch.Generator().manual_seed(11))
    # What is left of the correction if all items are taken to be drawn alike.
    uniform = torch.full((size,), math.log(size / vocabulary))
    full = softmax_loss(states, items, targets)
    corrected, uncorrected = (
        sampled_softmax_loss(states, items, targets, negatives, logs) for logs in (log_counts, uniform)
    )

    assert abs(corrected - full) < tolerance < 0.5 * abs(uncorrected - full)
    (exact,), (near,), (off,) = (_grads(loss, items) for loss in (full, corrected, uncorrected))
    assert (near - exact).norm() < 0.1 * (off - exact).norm()


def test_sampled_work_does_not_grow_with_the_catalogue_and_touches_drawn_rows_alone() -> None:
    flops = []
    for vocabulary in (100, 10_000):
        states, items, targets = _problem(positions=50, items=vocabulary)
        negatives = torch.randint(1, 101, (20,), generator=torch.Generator().manual_seed(1))
        with _flop_counter() as counter:
            loss = sampled_softmax_loss(states, items, targets, negatives, torch.zeros(20))
            loss.backward()  # type: ignore[no-untyped-call]
        flops.append(counter.get_total_flops())
        assert items.grad is not None
        touched = items.grad.abs().sum(1).nonzero()[:, 0]
        assert set(touched.tolist()) == set(negatives.tolist()) | set(targets.tolist())
    assert flops == [3 * 2 * 50 * 20 * 5] * 2


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_draws_follow_popularity_to_the_exponent(exponent: float) -> None:
    """Pearson's statistic over 20 items has 19 degrees of freedom; it exceeds 44 once in a thousand seeds."""
    counts, size = _popular(20), 200_000
    drawn, log_counts = NegativeSampler(counts, size, exponent).draw(torch.Generator().manual_seed(2))
    expected = counts.double().pow(exponent) / counts.double().pow(exponent).sum() * size
    seen = torch.bincount(drawn, minlength=21)[1:]
    assert ((seen - expected).square() / expected).sum() < 44
    torch.testing.assert_close(log_counts, expected.log().float()[drawn - 1])


def test_an_item_without_interactions_is_drawn_only_with_uniform_draws() -> None:
    counts = torch.tensor([0, 3, 0, 0, 5, 0])
    drawn = [NegativeSampler(counts, 2000, e).draw(torch.Generator().manual_seed(0))[0] for e in (0.5, 0.0)]
    assert drawn[0].unique().tolist() == [2, 5]
    assert drawn[1].unique().tolist() == [1, 2, 3, 4, 5, 6]


def test_the_same_seed_draws_the_same_items() -> None:
    sampler = NegativeSampler(_popular(100), 50, 0.5)
    first, again, other = (sampler.draw(torch.Generator().manual_seed(seed))[0] for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
