"""Causal multi-head self-attention, the mixer of SASRec.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018).

Axes: `N` flat positions, `L` items of a row alone, `D` hidden size, `H` heads.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import EncoderConfig
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer


class Attention(Mixer):
    """Each position attends to the items of its row up to itself."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create the projections; query, key and value are one matrix."""
        super().__init__(config)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    @property
    def _dropout(self) -> float:
        return self.config.attention_dropout if self.training else 0.0

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        projected = self.query_key_value(states_ND)
        mixed: Tensor = self.out(rows.attend(projected, masks, self.config.num_heads, self._dropout))
        return mixed

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        heads = self.config.num_heads
        mixed: Tensor = self.out(rows.attend_from_ends(states_ND, self.query_key_value, masks, heads, self._dropout))
        return mixed

    def alone(self, states_LD: Tensor) -> Tensor:
        length = len(states_LD)
        heads = self.query_key_value(states_LD).view(length, 3, self.config.num_heads, -1).permute(1, 2, 0, 3)
        # As a batch of one: PyTorch has no fused kernel for three axes.
        query, key, value = heads.unsqueeze(1).unbind()
        context_1HLd = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(context_1HLd.transpose(1, 2).reshape(length, -1))
        return mixed
