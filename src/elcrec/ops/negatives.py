"""Drawing negatives: items that are not in a row, and items that all rows share.

Axes: `M` positions, `U` rows of known items, `N` draws, `V` items, `S` shared draws.
"""

import torch
from torch import Tensor


class UnseenItems:
    """Draws items from 1 to `num_items` that are not in a row, with one random number and one search per draw.

    The u-th item outside a sorted set a_0 < a_1 < … is u plus the number of j with a_j - j <= u.
    """

    def __init__(self, items_M: Tensor, row_M: Tensor, num_rows: int, num_items: int) -> None:
        """Sort the known items of each row, at least one: items of all rows, repeats allowed, and the row of each."""
        self._num_items, self._width = num_items, num_items + 1
        keys_M = torch.sort(row_M * self._width + items_M - 1).values
        known_M = keys_M.new_ones(len(keys_M) + 1)
        known_M[0] = 0
        known_M[2:] = keys_M[1:] != keys_M[:-1]
        # The number of distinct items of all rows before each position.
        self._before_M = known_M.cumsum(0)
        first_U = torch.searchsorted(keys_M, torch.arange(num_rows + 1, device=keys_M.device) * self._width)
        self._before_U = self._before_M[first_U]
        rank_M = self._before_M[1:] - 1 - self._before_U[torch.div(keys_M, self._width, rounding_mode="floor")]
        self._gaps_M = keys_M - rank_M

    def draw(self, row_N: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw an item for each of the given rows, int64, [N]; the last item for a row that knows all."""
        before_N = self._before_U[row_N]
        unknown_N = self._num_items - (self._before_U[row_N + 1] - before_N)
        uniform_N = torch.rand(row_N.shape, dtype=torch.float64, generator=generator, device=row_N.device)
        place_N = (uniform_N * unknown_N).long()
        found_N = torch.searchsorted(self._gaps_M, row_N * self._width + place_N, right=True)
        return (place_N + self._before_M[found_N] - before_N).clamp_(max=self._num_items - 1) + 1


def draw_others(targets: Tensor, num_items: int, generator: torch.Generator | None) -> Tensor:
    """Draw an item from 1 to `num_items` for each target, uniformly among all but the target, int64."""
    uniform = torch.rand(targets.shape, dtype=torch.float64, generator=generator, device=targets.device)
    drawn = (uniform * (num_items - 1)).long() + 1
    return (drawn + (drawn >= targets) * (targets > 0)).clamp_(max=num_items)


class NegativeSampler:
    """Draws items with replacement, proportionally to popularity^exponent; a draw costs O(log V)."""

    def __init__(self, counts_V: Tensor, num_samples: int, exponent: float) -> None:
        """Prepare draws of `num_samples` items (S), on the device of `counts_V`.

        Args:
            counts_V: interactions of items 1 to V, not all 0.
            num_samples: number of draws (S).
            exponent: 0 is uniform over all items, 1 proportional to popularity. Above 0, an item without interactions
                is never drawn.
        """
        self.num_samples = num_samples
        # Summed on the CPU, where the order of summation, and so the draws of a seed, are always the same.
        share_V = counts_V.cpu().double().pow(exponent)
        share_V /= share_V.sum()
        below_V = share_V.cumsum(0)
        self._below_V = (below_V / below_V[-1]).to(counts_V.device)
        self._log_counts_V = (share_V * num_samples).log().to(counts_V.device)

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return items from 1 to V, int64, [S], and the log of their expected count, log(S Q), float32, [S].

        The generator is on the sampler's device; `None` is PyTorch's own.
        """
        uniform_S = torch.rand(self.num_samples, dtype=torch.float64, generator=generator, device=self._below_V.device)
        # `right` skips items of probability 0, whose cumulative share equals their predecessor's.
        index_S = torch.searchsorted(self._below_V, uniform_S, right=True)
        return index_S + 1, self._log_counts_V[index_S].float()
