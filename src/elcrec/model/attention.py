"""Causal multi-head self-attention, the mixer of SASRec, and a variant with rotary positions.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018); Su et al., "RoFormer: Enhanced
Transformer with Rotary Position Embedding" (Neurocomputing 2024).

Axes: `N` flat positions, `L` items of a row alone, `D` hidden size, `H` heads, `X` projections side by side, `T`
window, `w` half the width of a head.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import EncoderConfig
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer

_SLOWEST = 1e-4
"""Angle in radians between neighbours, for the two dimensions that are rotated least."""


class Attention(Mixer):
    """Attention of each position to the items of its row up to itself."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create the projections; query, key and value are one matrix."""
        super().__init__(config)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    @property
    def _dropout(self) -> float:
        return self.config.attention_dropout if self.training else 0.0

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        projected = self._placed(self.query_key_value(states_ND), rows.ages_N)
        mixed: Tensor = self.out(rows.attend(projected, masks, self.config.num_heads, self._dropout))
        return mixed

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        width, weight, bias = states_ND.shape[1], self.query_key_value.weight, self.query_key_value.bias
        # The rotation for age 0, that of a row's last item, is the identity.
        query = partial(F.linear, weight=weight[:width], bias=bias[:width])
        keys_values = self._placed(F.linear(states_ND, weight[width:], bias[width:]), rows.ages_N)
        context_BD = rows.attend_from_ends(states_ND, query, keys_values, masks, self.config.num_heads, self._dropout)
        mixed: Tensor = self.out(context_BD)
        return mixed

    def alone(self, states_LD: Tensor) -> Tensor:
        # A batch of one, because PyTorch has no fused kernel for three axes.
        query, key, value = self._heads_alone(states_LD).unsqueeze(1).unbind()
        context_1HLd = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(context_1HLd.transpose(1, 2).reshape(states_LD.shape))
        return mixed

    def last_alone(self, states_LD: Tensor) -> Tensor:
        # With one query, three plain operations take less time than the fused kernel.
        query, key, value = self._heads_alone(states_LD).unbind()
        weights_H1L = torch.bmm(query[:, -1:] * query.shape[-1] ** -0.5, key.mT).softmax(-1)
        mixed: Tensor = self.out(torch.bmm(weights_H1L, value).view(1, -1))
        return mixed

    def _heads_alone(self, states_LD: Tensor) -> Tensor:
        """Return queries, keys and values of one row by heads, [3, H, L, d]."""
        projected = self._placed_alone(self.query_key_value(states_LD))
        return projected.view(len(states_LD), 3, self.config.num_heads, -1).permute(1, 2, 0, 3)

    def _placed(self, projected_NX: Tensor, ages_N: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Encode positions into queries and keys, if they are not in the states already.

        Args:
            projected_NX: queries, keys and values of each position, or only keys and values, [N, 3 D] or [N, 2 D].
            ages_N: distance of each position from the end of its row.
        """
        return projected_NX

    def _placed_alone(self, projected_LX: Tensor) -> Tensor:
        """Return the result of `_placed` for one row with its positions in order, [L, 3 D]."""
        return projected_LX


class RotaryAttention(Attention):
    """Attention with rotary positions: queries and keys are rotated, so that scores depend on distances.

    A state then depends only on the items before it, not on the number of items after it. Each position of a sequence
    has the same state as the end of that prefix, so one pass over a sequence trains all its prefixes.
    """

    knows_places = True
    _cos_Tw: Tensor
    _sin_Tw: Tensor
    _cos_TX: Tensor
    _sin_TX: Tensor
    _partner_X: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        """Compute the angles of every age."""
        super().__init__(config)
        width = config.hidden_size // config.num_heads
        speeds = _SLOWEST ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles_Tw = torch.arange(config.window)[:, None] * -speeds
        for name, buffer in (("_cos_Tw", angles_Tw.cos()), ("_sin_Tw", angles_Tw.sin())):
            self.register_buffer(name, buffer.to(torch.get_default_dtype()), persistent=False)
        for name, buffer in zip(("_cos_TX", "_sin_TX", "_partner_X"), self._for_whole_rows(), strict=True):
            self.register_buffer(name, buffer, persistent=False)

    def _for_whole_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return cosines and signed sines for queries, keys and values side by side, [T, 3 D], the oldest item first.

        The third result is, for each of these columns, the one with which it is turned. Values are not turned.
        """
        turned, width = 2 * self.config.num_heads, self._cos_Tw.shape[1]
        cos_TX = self._cos_Tw.flip(0).repeat(1, 2 * turned)
        sin_TX = self._sin_Tw.flip(0).repeat(1, 2 * turned).view(-1, turned, 2, width)
        sin_TX = torch.stack((-sin_TX[:, :, 0], sin_TX[:, :, 1]), 2).flatten(1)
        columns = torch.arange(3 * self.config.hidden_size)
        partners = columns[: 2 * self.config.hidden_size].view(turned, 2, width).flip(1).flatten()
        values = self.config.hidden_size
        return (
            F.pad(cos_TX, (0, values), value=1.0),
            F.pad(sin_TX, (0, values)),
            torch.cat((partners, columns[-values:])),
        )

    def _placed_alone(self, projected_LX: Tensor) -> Tensor:
        # A row or two take as long as the number of operations, so the values are multiplied as well, by 1 and 0.
        length = len(projected_LX)
        turned_LX = projected_LX.index_select(1, self._partner_X).mul_(self._sin_TX[-length:])
        return turned_LX.addcmul_(projected_LX, self._cos_TX[-length:])

    def _placed(self, projected_NX: Tensor, ages_N: Tensor) -> Tensor:
        cos_N1w, sin_N1w = (
            buffer.index_select(0, ages_N)[:, None].to(projected_NX.dtype) for buffer in (self._cos_Tw, self._sin_Tw)
        )
        turned_NX, values_ND = torch.tensor_split(projected_NX, [-self.config.hidden_size], dim=1)
        first, second = turned_NX.view(len(turned_NX), -1, 2, cos_N1w.shape[-1]).unbind(2)
        turned = torch.stack((first * cos_N1w - second * sin_N1w, second * cos_N1w + first * sin_N1w), 2)
        return torch.cat((turned.flatten(1), values_ND), 1)
