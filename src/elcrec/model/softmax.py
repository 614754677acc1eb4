"""Next-item losses over the whole catalogue: full softmax cross entropy, and its sampled form for large catalogues.

Logits never fill memory. A block of positions at a time is scored, and since a loss is a number whose gradient is
only scaled by what comes after, the block's share of the gradient is taken at once: each logit is computed once and
forgotten, three matrix products a step in all.

Axes: `N` flat positions, `n` positions of a block, `D` hidden size, `V` items, `S` drawn negatives, `R` rows of the
table that is looked up (all items, or negatives and targets), `C` rows of it that are scored against every position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LOGITS_ON_CPU, _LOGITS_ON_GPU = 5 * 2**18, 2**25
"""Logits of a default block: on a CPU what the caches hold, on a GPU enough to keep it busy."""
_LEAST_BLOCK = 64
"""Fewer positions than this make slow matrix products; at this many the logits are no larger than a 64-wide table."""
_SPREAD = 60.0
"""Logits further than this below a position's largest are raised to it: a share of 1e-26, lost to rounding anyhow.
Where exp underflows a CPU's vector library takes two hundred times as long, and products of denormals twenty times."""


def softmax_loss(
    states_ND: Tensor,
    items_VD: Tensor,
    targets_N: Tensor,
    *,
    weights_N: Tensor | None = None,
    block: int | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """L_next over the catalogue: cross entropy of the next item among all items, averaged over positions.

    Takes `block` x V logits of memory, whatever N. On a CPU the same input gives the same bits.

    Args:
        states_ND: encoder states.
        items_VD: item vectors, [V + 1, D]; row 0 is padding: never scored, and its gradient is zero.
        targets_N: the item that came next, 1 to V, int64.
        weights_N: constant weight of each position, not all 0; `None` weighs all positions alike.
        block: positions scored at a time; `None` chooses for the device. Changes the result by rounding alone.
        products: type of logits and matrix products, such as bfloat16; sums stay exact. `None` is the table's own.
    """
    positions = _weighted(states_ND, targets_N, weights_N)

    def erase(exps_nC: Tensor, rows: slice) -> None:
        exps_nC.scatter_(1, positions.targets_N[rows, None] - 1, 0.0)

    scoring = _Scoring(rows_R=slice(1, None), targets_N=positions.targets_N, log_counts_C=None, erase=erase)
    return _cross_entropy(positions, items_VD, scoring, block, products)


def sampled_softmax_loss(
    states_ND: Tensor,
    items_VD: Tensor,
    targets_N: Tensor,
    negatives_S: Tensor,
    log_counts_S: Tensor,
    *,
    weights_N: Tensor | None = None,
    block: int | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """L_next over drawn items: cross entropy of the next item among itself and negatives that all positions share.

    The log of a negative's expected count (S Q) is taken off its logit, which makes the sum over the draws an unbiased
    estimate of the sum over the catalogue (Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of
    a Neural Probabilistic Language Model", IEEE TNN 2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large
    Corpus Item Recommendations", RecSys 2019). A negative that is a position's own target is left out there. The
    target's logit is not corrected: it is in the sum for certain, not by a draw.

    The items' gradient comes from one embedding lookup of S + N rows.

    Args:
        states_ND: encoder states.
        items_VD: item vectors, [V + 1, D]; row 0 is padding.
        targets_N: the item that came next, 1 to V, int64.
        negatives_S: drawn items, 1 to V, int64, repeats allowed; see `NegativeSampler`.
        log_counts_S: log of the number of times that each is expected among S draws; zeros switch the correction off.
        weights_N: constant weight of each position, not all 0; `None` weighs all positions alike.
        block: positions scored at a time; `None` chooses for the device. Changes the result by rounding alone.
        products: type of logits and matrix products, such as bfloat16; sums stay exact. `None` is the table's own.
    """
    positions = _weighted(states_ND, targets_N, weights_N)
    looked_up_R = torch.cat((negatives_S, positions.targets_N))
    size, device = len(negatives_S), negatives_S.device

    def erase(exps_nC: Tensor, rows: slice) -> None:
        exps_nC.masked_fill_(positions.targets_N[rows, None] == negatives_S, 0.0)

    scoring = _Scoring(
        rows_R=slice(0, size),
        targets_N=torch.arange(size, len(looked_up_R), device=device),
        log_counts_C=log_counts_S,
        erase=erase,
    )
    return _cross_entropy(positions, F.embedding(looked_up_R, items_VD), scoring, block, products)


class NegativeSampler:
    """Draws items with replacement from popularity^exponent; a draw costs O(log V)."""

    def __init__(self, counts_V: Tensor, num_samples: int, exponent: float) -> None:
        """Prepare the distribution, on the device of `counts_V`.

        Args:
            counts_V: interactions of items 1 to V, [V], not all 0.
            num_samples: items a draw (S).
            exponent: 0 is uniform over all items, 1 proportional to popularity. Above 0 an item without interactions
                is never drawn.
        """
        self.num_samples = num_samples
        # Summed on the CPU, where the order of summation, and so the draws of a seed, never change.
        share_V = counts_V.cpu().double().pow(exponent)
        share_V /= share_V.sum()
        below_V = share_V.cumsum(0)
        self._below_V = (below_V / below_V[-1]).to(counts_V.device)
        self._log_counts_V = (share_V * num_samples).log().to(counts_V.device)

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draw once.

        Args:
            generator: on the sampler's device; `None` is PyTorch's own.

        Returns:
            Items from 1 to V, int64, [S], and the log of their expected count, log(S Q), float32, [S].
        """
        uniform_S = torch.rand(self.num_samples, dtype=torch.float64, generator=generator, device=self._below_V.device)
        # `right` passes over items of probability 0, whose cumulative share equals their predecessor's.
        index_S = torch.searchsorted(self._below_V, uniform_S, right=True)
        return index_S + 1, self._log_counts_V[index_S].float()


@dataclass(frozen=True)
class _Positions:
    """What is averaged: positions, their targets, and weights that sum to 1."""

    states_ND: Tensor
    targets_N: Tensor
    weights_N: Tensor


@dataclass(frozen=True)
class _Scoring:
    """Which rows of a table a position is scored against.

    Attributes:
        rows_R: the rows scored against every position.
        targets_N: the row of each position's target, which counts whether scored or not.
        log_counts_C: taken off the logits of the scored rows.
        erase: zeroes, in a block of exponentials, the scored rows that are a position's target.
    """

    rows_R: slice
    targets_N: Tensor
    log_counts_C: Tensor | None
    erase: Callable[[Tensor, slice], None]


def _weighted(states_ND: Tensor, targets_N: Tensor, weights_N: Tensor | None) -> _Positions:
    weights_N = states_ND.new_ones(len(states_ND)) if weights_N is None else weights_N.to(states_ND.dtype)
    return _Positions(states_ND, targets_N, weights_N / weights_N.sum())


def _cross_entropy(
    positions: _Positions, table_RD: Tensor, scoring: _Scoring, block: int | None, products: torch.dtype | None
) -> Tensor:
    columns = len(table_RD[scoring.rows_R])
    at_once = _LOGITS_ON_CPU if table_RD.device.type == "cpu" else _LOGITS_ON_GPU
    block = block or max(_LEAST_BLOCK, at_once // columns // 32 * 32)
    states_ND, weights_N, dtype = positions.states_ND, positions.weights_N, products or table_RD.dtype
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        states_ND, table_RD, weights_N, scoring, block, dtype, torch.is_grad_enabled()
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean of log(1 + sum of exp(other logits) / exp(target logit)), with the gradient taken on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        table_RD: Tensor,
        weights_N: Tensor,
        scoring: _Scoring,
        block: int,
        dtype: torch.dtype,
        graded: bool,
    ) -> Tensor:
        scores = _Scores(states_ND.to(dtype), table_RD.to(dtype), scoring, min(block, len(states_ND)))
        grads = _Gradients(scores, *(graded and wanted for wanted in ctx.needs_input_grad[:2]))
        weights_N1 = weights_N.to(scores.exact)[:, None]
        rest_N1, target_N1 = torch.empty_like(weights_N1), scores.targets()
        for start in range(0, len(states_ND), block):
            rows = slice(start, start + block)
            exps_nC = scores.exponentials(rows, target_N1[rows])
            torch.sum(exps_nC, 1, keepdim=True, dtype=scores.exact, out=rest_N1[rows])
            grads.add(rows, exps_nC, weights_N1[rows] / (rest_N1[rows] + target_N1[rows].exp()))
        grads.add_targets(weights_N1 * rest_N1 / (rest_N1 + target_N1.exp()))
        ctx.save_for_backward(*grads.cast(states_ND.dtype, table_RD.dtype))
        loss: Tensor = (F.softplus(rest_N1.log() - target_N1) * weights_N1).sum()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors)
        return (*grads, None, None, None, None, None)


class _Scores:
    """Exponentials of logits, a block of positions at a time, in one buffer."""

    def __init__(self, states_ND: Tensor, table_RD: Tensor, scoring: _Scoring, block: int) -> None:
        self.states_ND, self.table_RD, self.scoring = states_ND, table_RD, scoring
        self.exact = torch.promote_types(table_RD.dtype, torch.float32)
        self.scored_CD = table_RD[scoring.rows_R]
        # A GPU is not asked: the host would wait for the answer, and the maximum costs little there.
        self._shifted = table_RD.device.type != "cpu" or not bool(self._reach() <= _SPREAD / 2)
        self._buffer_nC = table_RD.new_empty(block, len(self.scored_CD))

    def _reach(self) -> Tensor:
        """Bound every logit by the largest norms (Cauchy-Schwarz): much cheaper than the maximum of each row."""
        state, row = (torch.linalg.vector_norm(x, dim=1).max() for x in (self.states_ND, self.table_RD))
        reach: Tensor = state * row
        logs_C = self.scoring.log_counts_C
        return reach if logs_C is None else reach + logs_C.abs().max()

    def targets(self) -> Tensor:
        """Logit of each position's target, [N, 1]."""
        return (self.states_ND.to(self.exact) * self.table_RD[self.scoring.targets_N]).sum(1, keepdim=True)

    def exponentials(self, rows: slice, target_n1: Tensor) -> Tensor:
        """Return exp of the scored logits, 0 for the target's; large logits, and `target_n1` in place, are shifted."""
        states_nD = self.states_ND[rows]
        logits_nC = torch.mm(states_nD, self.scored_CD.T, out=self._buffer_nC[: len(states_nD)])
        if self.scoring.log_counts_C is not None:
            logits_nC.sub_(self.scoring.log_counts_C)
        if self._shifted:
            largest_n1 = torch.maximum(logits_nC.amax(1, keepdim=True), target_n1)
            logits_nC.sub_(largest_n1).clamp_(min=-_SPREAD)
            target_n1.sub_(largest_n1)
        exps_nC = logits_nC.exp_()
        self.scoring.erase(exps_nC, rows)
        return exps_nC


class _Gradients:
    """The gradient of the mean loss, summed over blocks."""

    def __init__(self, scores: _Scores, of_states: bool, of_table: bool) -> None:
        self._scores, exact = scores, scores.exact
        self._states_ND = torch.empty_like(scores.states_ND, dtype=exact) if of_states else None
        self._table_RD = torch.zeros_like(scores.table_RD, dtype=exact) if of_table else None

    def add(self, rows: slice, exps_nC: Tensor, scale_n1: Tensor) -> None:
        """Add what a block pushes away.

        Args:
            rows: the block's positions.
            exps_nC: their exponentials.
            scale_n1: makes the exponentials weighted probabilities; applied to the narrow side of each product.
        """
        scores = self._scores
        if self._states_ND is not None:
            torch.mul(exps_nC @ scores.scored_CD, scale_n1, out=self._states_ND[rows])
        if self._table_RD is not None:
            scaled_nD = (scores.states_ND[rows] * scale_n1).to(exps_nC.dtype)
            _accumulate(self._table_RD[scores.scoring.rows_R], exps_nC.T, scaled_nD)

    def add_targets(self, pull_N1: Tensor) -> None:
        """Add what draws each position and its target together; `pull_N1` is the weight times 1 - probability."""
        scores, targets_N = self._scores, self._scores.scoring.targets_N
        if self._states_ND is not None:
            self._states_ND.sub_(scores.table_RD[targets_N] * pull_N1)
        if self._table_RD is not None:
            self._table_RD.index_add_(0, targets_N, scores.states_ND * -pull_N1)

    def cast(self, states: torch.dtype, table: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of states and table, each in the type of its input."""
        return (
            None if self._states_ND is None else self._states_ND.to(states),
            None if self._table_RD is None else self._table_RD.to(table),
        )


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a product, in the precision of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
