"""The chances of items to be drawn for the places of an answer.

Axes: `P` places of an answer, `C` candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Chances:
    """The distribution from which one answer is drawn.

    Attributes:
        items_C: item indices, best first.
        chance_PC: chance of each candidate to be at each place; each row adds up to 1.
    """

    items_C: Ints
    chance_PC: npt.NDArray[np.float64]


def chances_of(items_C: Ints, places: Sequence[int], kind_C: Ints, share: float) -> Chances:
    """Return the chances of candidates under exploration; `Rules` draws with the same chances.

    Args:
        items_C: item indices, best first.
        places: the candidate at each place without exploration.
        kind_C: the capped groups to which each candidate belongs, as one number.
        share: chance of each place to show one of the other candidates of its kind, all with the same chance.
    """
    rows, chosen = np.arange(len(places)), np.array(places, np.int64)
    chance_PC = np.zeros((len(places), len(items_C)))
    chance_PC[rows, chosen] = 1.0
    if not share or not places:
        return Chances(items_C=items_C, chance_PC=chance_PC)
    kind_P = kind_C[chosen]
    other_PC = kind_P[:, None] == kind_C
    other_PC[:, chosen] = False
    others_P, mine_P = other_PC.sum(1), (kind_P[:, None] == kind_P).sum(1)
    # If a kind has fewer other candidates than places, it is not explored.
    explored = others_P >= mine_P
    chance_PC[rows[explored], chosen[explored]] = 1 - share
    chance_PC[explored] += other_PC[explored] * (share / others_P[explored])[:, None]
    return Chances(items_C=items_C, chance_PC=chance_PC)
