"""Negatives for L_next by binary cross entropy: items that a user has not interacted with.

Axes: `M` positions, `U` rows of known items.
"""

import torch
from torch import Tensor


class UnseenItems:
    """Draws items that do not stand in a row, uniformly: one number and one search a draw, no second try.

    The u-th of the items that are not in a sorted set a_0 < a_1 < … is u plus the number of j with a_j - j <= u.
    """

    def __init__(self, items_M: Tensor, row_M: Tensor, num_rows: int, num_items: int) -> None:
        """Sort what each row knows.

        Args:
            items_M: items of all rows, 1 to `num_items`, repeats allowed.
            row_M: row of each item.
            num_rows: U; every row knows an item.
            num_items: size of the catalogue (V).
        """
        self._num_items, self._width = num_items, num_items + 1
        keys_M = torch.sort(row_M * self._width + items_M - 1).values
        known_M = keys_M.new_ones(len(keys_M) + 1)
        known_M[0] = 0
        known_M[2:] = keys_M[1:] != keys_M[:-1]
        # How many different items of all rows stand before each place.
        self._before_M = known_M.cumsum(0)
        first_U = torch.searchsorted(keys_M, torch.arange(num_rows + 1, device=keys_M.device) * self._width)
        self._before_U = self._before_M[first_U]
        rank_M = self._before_M[1:] - 1 - self._before_U[torch.div(keys_M, self._width, rounding_mode="floor")]
        self._gaps_M = keys_M - rank_M

    def draw(self, row_N: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw an item for each of the named rows, int64, [N]; the last item for a row that knows all.

        Args:
            row_N: rows, repeats allowed.
            generator: on their device; `None` is PyTorch's own.
        """
        before_N = self._before_U[row_N]
        unknown_N = self._num_items - (self._before_U[row_N + 1] - before_N)
        uniform_N = torch.rand(row_N.shape, dtype=torch.float64, generator=generator, device=row_N.device)
        place_N = (uniform_N * unknown_N).long()
        found_N = torch.searchsorted(self._gaps_M, row_N * self._width + place_N, right=True)
        return (place_N + self._before_M[found_N] - before_N).clamp_(max=self._num_items - 1) + 1
