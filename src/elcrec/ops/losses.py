"""Losses as functions of tensors: the next item against one, some or all other items, and rows against rows.

Logits over the catalogue are never all in memory. One block of positions is scored at a time. Since the gradient of a
scalar loss is only scaled by what comes after it, the block's share of the gradient is computed at once: each logit is
computed once and discarded, with three matrix products per step in total.

Axes: `N` flat positions, `n` positions of a block, `D` hidden size, `V` items, `S` drawn negatives, `R` rows of the
lookup table (all items, or negatives and targets) or of a contrast, `C` rows of the table that are scored against every
position.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LOGITS_ON_CPU, _LOGITS_ON_GPU = 5 * 2**18, 2**25
"""Number of logits in a default block: on a CPU as many as fit its caches, on a GPU enough to keep it busy."""
_LEAST_BLOCK = 64
"""Smallest number of positions in a block: fewer make matrix products slow, and with this many the logits are no larger
than a 64-wide table."""
_SPREAD = 60.0
"""Logits more than this below a position's largest are raised to this distance: a share of 1e-26, below rounding. If
exp underflows, a CPU's vector library takes two hundred times as long, and products of denormals twenty times."""


def binary_loss(states_ND: Tensor, positives_ND: Tensor, negatives_ND: Tensor, weights_N: Tensor | None) -> Tensor:
    """Binary cross entropy of the next item against one drawn item, averaged over targets.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), equation 6.

    Args:
        states_ND: encoder states.
        positives_ND: embedding of the next item.
        negatives_ND: embedding of a drawn item.
        weights_N: weight of each target; `None` for equal weights.
    """
    positive_N = (states_ND * positives_ND).sum(1)
    negative_N = (states_ND * negatives_ND).sum(1)
    losses_N = F.softplus(-positive_N) + F.softplus(negative_N)
    return losses_N.mean() if weights_N is None else (losses_N * weights_N).sum() / _total(weights_N)


def _total(weights_N: Tensor) -> Tensor:
    """Return the sum of weights, or, if all are 0, a divisor that makes the mean 0."""
    return weights_N.sum().clamp_min(torch.finfo(weights_N.dtype).tiny)


def info_nce(similarities_RR: Tensor, temperature: float, groups_R: Tensor | None = None) -> Tensor:
    """InfoNCE (NT-Xent): every row must find its partner, half the rows away, among all other rows.

    Args:
        similarities_RR: dot products of all rows with all rows, of an even number of rows; or several such tables,
            [..., R, R], whose mean loss is returned.
        temperature: divides the similarities.
        groups_R: group of each row; rows of the same group are not contrasted. `None` contrasts all.
    """
    rows_R = torch.arange(similarities_RR.shape[-1], device=similarities_RR.device)
    partner_R = rows_R.roll(len(rows_R) // 2)
    groups_R = rows_R if groups_R is None else groups_R
    left_out_RR = (groups_R[:, None] == groups_R).scatter_(1, partner_R[:, None], value=False)
    logits_RR = (similarities_RR / temperature).masked_fill_(left_out_RR, -torch.inf)
    return F.cross_entropy(logits_RR.flatten(0, -2), partner_R.expand(logits_RR.shape[:-1]).flatten())


def softmax_loss(
    states_ND: Tensor,
    items_VD: Tensor,
    targets_N: Tensor,
    *,
    weights_N: Tensor | None = None,
    block: int | None = None,
    products: torch.dtype | None = None,
    robustness: float = 0.0,
) -> Tensor:
    """L_next over the catalogue: cross entropy of the next item among all items, averaged over positions.

    Memory is `block` x V logits, independent of N. On a CPU, the same input gives the same bits.

    With a robustness q it is the generalised cross entropy (1 - p^q) / q of the next item's probability p, whose
    gradient is that of the cross entropy times p^q: what cannot be predicted counts less (Zhang and Sabuncu,
    "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels", NeurIPS 2018, equation 6).

    Args:
        states_ND: encoder states.
        items_VD: item vectors, [V + 1, D]; row 0 is padding, which is never scored and has zero gradient.
        targets_N: the next item, 1 to V, int64.
        weights_N: constant weight of each position; `None` for equal weights.
        block: positions scored at a time; `None` chooses for the device. It affects the result only by rounding.
        products: type of logits and matrix products, such as bfloat16; sums stay exact. `None` is the table's own.
        robustness: q, from 0, the cross entropy, to 1, the mean of 1 - p.
    """

    def erase(exps_nC: Tensor, rows: slice) -> None:
        exps_nC.scatter_(1, targets_N[rows, None] - 1, 0.0)

    scoring = _Scoring(slice(1, None), targets_N, erase, block, products)
    return _cross_entropy(states_ND, items_VD, weights_N, scoring, robustness)


def sampled_softmax_loss(
    states_ND: Tensor,
    items_VD: Tensor,
    targets_N: Tensor,
    negatives_S: Tensor,
    log_counts_S: Tensor,
    *,
    as_scored: Callable[[Tensor], Tensor] | None = None,
    weights_N: Tensor | None = None,
    block: int | None = None,
    products: torch.dtype | None = None,
    robustness: float = 0.0,
) -> Tensor:
    """L_next over drawn items: cross entropy of the next item among itself and negatives that all positions share.

    `negatives_S` are items from 1 to V, int64, repeats allowed; `log_counts_S` is the log of each one's expected count
    among S draws (`NegativeSampler`), and zeros switch the correction off. `as_scored` maps the looked-up rows to the
    vectors that are scored, [R, D] to [R, D]. Everything else is as for `softmax_loss`.

    The log of a negative's expected count (S Q) is subtracted from its logit, which makes the sum over the draws an
    unbiased estimate of the sum over the catalogue (Bengio and Senécal, "Adaptive Importance Sampling to Accelerate
    Training of
    a Neural Probabilistic Language Model", IEEE TNN 2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large
    Corpus Item Recommendations", RecSys 2019). The target is always in the sum, not by a draw, so its logit is not
    corrected; a negative that equals a position's target is left out there.
    """

    def erase(exps_nC: Tensor, rows: slice) -> None:
        exps_nC.masked_fill_(targets_N[rows, None] == negatives_S, 0.0)

    # A single lookup of S + N rows, so that the items' gradient is made once.
    looked_up_R, size = torch.cat((negatives_S, targets_N)), len(negatives_S)
    rows_N = torch.arange(size, len(looked_up_R), device=negatives_S.device)
    scoring = _Scoring(slice(0, size), rows_N, erase, block, products, log_counts_S)
    rows_RD = F.embedding(looked_up_R, items_VD)
    scored_RD = rows_RD if as_scored is None else as_scored(rows_RD)
    return _cross_entropy(states_ND, scored_RD, weights_N, scoring, robustness)


@dataclass(frozen=True)
class _Scoring:
    """The rows of a table to score every position against; `block` and `products` as in `softmax_loss`.

    `targets_N` are also rows of the table, scored or not. `erase` zeroes, in a block of exponentials, the scored rows
    that are a position's target. `log_counts_C` is subtracted from the logits.
    """

    rows_R: slice
    targets_N: Tensor
    erase: Callable[[Tensor, slice], None]
    block: int | None
    products: torch.dtype | None
    log_counts_C: Tensor | None = None


def _cross_entropy(
    states_ND: Tensor, table_RD: Tensor, weights_N: Tensor | None, scoring: _Scoring, robustness: float
) -> Tensor:
    weights_N = states_ND.new_ones(len(states_ND)) if weights_N is None else weights_N.to(states_ND.dtype)
    inputs = (states_ND, table_RD, weights_N / _total(weights_N), scoring, robustness, torch.is_grad_enabled())
    loss: Tensor = _CrossEntropy.apply(*inputs)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Mean of log(1 + sum of exp(other logits) / exp(target logit)), with the gradient computed in the forward pass.

    With a robustness q, each such loss L becomes (1 - exp(-q L)) / q, which scales its gradient by exp(-q L).
    """

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        table_RD: Tensor,
        shares_N: Tensor,
        scoring: _Scoring,
        robustness: float,
        graded: bool,
    ) -> Tensor:
        scores = _Scores(states_ND, table_RD, scoring)
        grads = _Gradients(scores, *(graded and wanted for wanted in ctx.needs_input_grad[:2]))
        shares_N1 = shares_N.to(scores.exact)[:, None]
        rest_N1, target_N1, slopes_N1 = torch.empty_like(shares_N1), scores.targets(), shares_N1.clone()
        for rows in scores.blocks():
            exps_nC = scores.exponentials(rows, target_N1[rows])
            torch.sum(exps_nC, 1, keepdim=True, dtype=scores.exact, out=rest_N1[rows])
            exp_n1 = target_N1[rows].exp()
            total_n1 = rest_N1[rows] + exp_n1
            if robustness:
                slopes_N1[rows] *= (exp_n1 / total_n1) ** robustness
            grads.add(rows, exps_nC, slopes_N1[rows] / total_n1)
        grads.add_targets(slopes_N1 * rest_N1 / (rest_N1 + target_N1.exp()))
        ctx.save_for_backward(grads.states_ND, grads.table_RD)
        losses_N1 = F.softplus(rest_N1.log() - target_N1)
        if robustness:
            losses_N1 = torch.expm1(losses_N1 * -robustness) / -robustness
        loss: Tensor = (losses_N1 * shares_N1).sum()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors)
        return (*grads, None, None, None, None)


class _Scores:
    """Exponentials of logits, a block of positions at a time, in one buffer."""

    def __init__(self, states_ND: Tensor, table_RD: Tensor, scoring: _Scoring) -> None:
        dtype, on_cpu = scoring.products or table_RD.dtype, table_RD.device.type == "cpu"
        self.states_ND, self.table_RD, self.scoring = states_ND.to(dtype), table_RD.to(dtype), scoring
        self.exact = torch.promote_types(dtype, torch.float32)
        self.scored_CD = self.table_RD[scoring.rows_R]
        at_once = (_LOGITS_ON_CPU if on_cpu else _LOGITS_ON_GPU) // len(self.scored_CD)
        self.block = scoring.block or max(_LEAST_BLOCK, at_once // 32 * 32)
        # Not on a GPU: the host would have to wait for the value, and the maximum costs little there.
        self._shifted = not on_cpu or not bool(self._reach() <= _SPREAD / 2)
        shape = min(self.block, len(states_ND)), len(self.scored_CD)
        # Its columns are contiguous on a CPU, where products with so many of them take 1.7 times as long in rows.
        self._buffer_nC = self.table_RD.new_empty(shape[::-1]).T if on_cpu else self.table_RD.new_empty(shape)

    def blocks(self) -> Iterator[slice]:
        """Yield the range of positions of each block."""
        return (slice(start, start + self.block) for start in range(0, len(self.states_ND), self.block))

    def _reach(self) -> Tensor:
        """Bound every logit by the largest norms (Cauchy-Schwarz), which is much cheaper than each row's maximum."""
        state, row = (torch.linalg.vector_norm(x, dim=1).max() for x in (self.states_ND, self.table_RD))
        reach: Tensor = state * row
        logs_C = self.scoring.log_counts_C
        return reach if logs_C is None else reach + logs_C.abs().max()

    def targets(self) -> Tensor:
        """Return the logit of each position's target, [N, 1]."""
        return (self.states_ND.to(self.exact) * self.table_RD[self.scoring.targets_N]).sum(1, keepdim=True)

    def exponentials(self, rows: slice, target_n1: Tensor) -> Tensor:
        """Return exp of the scored logits, 0 for the target; shift large logits, and `target_n1` in place."""
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
    """The required gradients of the mean loss, summed over blocks in at least float32."""

    def __init__(self, scores: _Scores, of_states: bool, of_table: bool) -> None:
        self._scores = scores
        self.states_ND = torch.empty_like(scores.states_ND, dtype=scores.exact) if of_states else None
        self.table_RD = torch.zeros_like(scores.table_RD, dtype=scores.exact) if of_table else None

    def add(self, rows: slice, exps_nC: Tensor, scale_n1: Tensor) -> None:
        """Add the repelling part of a block; `scale_n1` turns its exponentials into weighted probabilities."""
        # The scale is applied to the narrower factor of each product.
        if self.states_ND is not None:
            torch.mul(exps_nC @ self._scores.scored_CD, scale_n1, out=self.states_ND[rows])
        if self.table_RD is not None:
            scaled_nD = (self._scores.states_ND[rows] * scale_n1).to(exps_nC.dtype)
            total_CD = self.table_RD[self._scores.scoring.rows_R]
            if exps_nC.dtype == total_CD.dtype:
                total_CD.addmm_(exps_nC.T, scaled_nD)
            else:
                total_CD.add_(exps_nC.T @ scaled_nD)

    def add_targets(self, pull_N1: Tensor) -> None:
        """Add the attraction of each position and its target; `pull_N1` is the weight times 1 - probability."""
        scores, targets_N = self._scores, self._scores.scoring.targets_N
        if self.states_ND is not None:
            self.states_ND.sub_(scores.table_RD[targets_N] * pull_N1)
        if self.table_RD is not None:
            self.table_RD.index_add_(0, targets_N, scores.states_ND * -pull_N1)
