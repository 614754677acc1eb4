"""The published encoder, written plainly and with padding; its state dict is a published checkpoint.

Every row fills the window from the right. A mask adds -10000 to the score of each key that is padding or stands later
than its query, so a query at padding, which may see nothing, sees everything.

Axes: `B` rows, `T` window, `D` hidden size, `H` heads.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

FORBIDDEN = -10000.0


class Textbook(nn.Module):
    """An encoder from items of right-aligned rows to a state for each position."""

    def __init__(
        self,
        num_items: int,
        *,
        window: int = 50,
        hidden_size: int = 64,
        blocks: int = 2,
        heads: int = 2,
        intents: int = 0,
        std: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.item_embeddings = nn.Embedding(num_items + 2, hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(window, hidden_size)
        self.LayerNorm = _Norm(hidden_size)
        self.item_encoder = nn.Module()
        self.item_encoder.layer = nn.ModuleList(_Layer(hidden_size, heads) for _ in range(blocks))
        if intents:
            self.cluster_centers = nn.Parameter(torch.empty(intents, hidden_size))
        self._draw(std, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fill every weight, the padding's row included, with N(0, std); norms scale around 1."""
        for name, parameter in self.named_parameters():
            parameter.normal_(std=std, generator=generator)
            if name.endswith("LayerNorm.weight"):
                parameter.add_(1.0)

    def forward(self, items_BT: Tensor) -> Tensor:
        """States of the last block, [B, T, D]."""
        states_BTD = self.LayerNorm(self.item_embeddings(items_BT) + self.position_embeddings.weight)
        causal_TT = torch.ones(items_BT.shape[1], items_BT.shape[1]).tril()
        allowed_BHTT = (items_BT > 0).to(causal_TT.dtype)[:, None, None, :] * causal_TT
        mask_BHTT = ((1.0 - allowed_BHTT) * FORBIDDEN).to(states_BTD.dtype)
        for layer in self.item_encoder.layer:
            states_BTD = layer(states_BTD, mask_BHTT)
        return states_BTD

    @torch.no_grad()
    def encode(self, rows: Sequence[Sequence[int]], batch_size: int = 256) -> Tensor:
        """Return the states of raw histories, oldest item first, [B, T, D]."""
        window = len(self.position_embeddings.weight)
        padded = [[0] * (window - len(row)) + list(row) for row in (row[-window:] for row in rows)]
        return torch.cat([self(block) for block in torch.tensor(padded).split(batch_size)])


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate = _FeedForward(width)

    def forward(self, states_BTD: Tensor, mask_BHTT: Tensor) -> Tensor:
        return self.intermediate(self.attention(states_BTD, mask_BHTT))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.LayerNorm = _Norm(width)

    def forward(self, states_BTD: Tensor, mask_BHTT: Tensor) -> Tensor:
        query, key, value = (self._by_head(layer(states_BTD)) for layer in (self.query, self.key, self.value))
        scores_BHTT = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + mask_BHTT
        context_BTD = (scores_BHTT.softmax(3) @ value).transpose(1, 2).flatten(2)
        return self.LayerNorm(states_BTD + self.dense(context_BTD))

    def _by_head(self, projected_BTD: Tensor) -> Tensor:
        return projected_BTD.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense_1, self.dense_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.LayerNorm = _Norm(width)

    def forward(self, states_BTD: Tensor) -> Tensor:
        inner = self.dense_1(states_BTD)
        inner = inner * 0.5 * (1.0 + torch.erf(inner / math.sqrt(2.0)))
        return self.LayerNorm(states_BTD + self.dense_2(inner))


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor) -> Tensor:
        centred = states - states.mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-12) + self.bias


MISSED = 2**31 - 1
"""The rank of a target that is not ranked: beyond every cut."""


def sorted_ranks(
    scores_BR: Tensor, histories: Sequence[Sequence[int]], targets: Sequence[int], candidates: npt.NDArray[np.int64]
) -> list[int]:
    """Rank each row's target by a full sort.

    Args:
        scores_BR: a score for each row of the item table.
        histories: raw ids that are not ranked.
        targets: the raw id to find; one in the history is missed.
        candidates: the raw ids that are ranked.
    """
    rows = zip(scores_BR.numpy(), histories, targets, strict=True)
    return [_sorted_rank(scores, history, target, candidates) for scores, history, target in rows]


def _sorted_rank(
    scores: npt.NDArray[np.floating], history: Sequence[int], target: int, candidates: npt.NDArray[np.int64]
) -> int:
    if target in history:
        return MISSED
    ranked = candidates[~np.isin(candidates, history)]
    # In a tie, the target is last.
    order = np.lexsort((ranked == target, -scores[ranked]))
    return int(np.flatnonzero(ranked[order] == target)[0]) + 1
