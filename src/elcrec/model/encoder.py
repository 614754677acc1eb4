"""The SASRec encoder: item and position embeddings, then post-norm causal transformer blocks.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), in the post-norm form with exact
GELU that ICLRec and ELCRec use.

Axes: `B` rows, `N` flat positions, `T` window, `D` hidden size, `H` heads, `V` items, `L` length of a group's rows.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import EncoderConfig
from elcrec.data.dataset import PADDING
from elcrec.model.dropout import Dropout, dropout_masks
from elcrec.model.grouping import Group, GroupedBatch
from elcrec.model.lookup import look_up
from elcrec.model.packing import PackedBatch, attend_chunks

Layout = GroupedBatch | PackedBatch
"""How a batch's rows lie in its flat array of positions."""

_INIT_STD = 0.02
_NORM_EPS = 1e-12


class Encoder(nn.Module):
    """Items of a batch in, a state for every position out."""

    def __init__(self, config: EncoderConfig, num_items: int) -> None:
        """Create the layers; weights are drawn from N(0, 0.02), biases are zero."""
        super().__init__()
        self.window = config.window
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_size, padding_idx=PADDING)
        self.position_embedding = nn.Embedding(config.window, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.apply(_initialise)

    def forward(self, batch: Layout, embedded_ND: Tensor | None = None) -> Tensor:
        """Return the last block's state at every flat position, [N, D]; padded positions hold noise.

        Args:
            batch: rows no longer than the window.
            embedded_ND: the item embeddings of `batch.items_N` where the caller has them.
        """
        states_ND, masks = self._embed(batch, embedded_ND)
        for block in self.blocks:
            states_ND = block(states_ND, batch, masks)
        return states_ND

    def last(self, batch: Layout, embedded_ND: Tensor | None = None) -> Tensor:
        """Return the last block's state at the last item of each row, [B, D].

        That is all that a ranking needs, or training on prefixes. In groups the last block asks one query a row; a
        packed batch has no rows to take it from, and a GPU does not mind.
        """
        if isinstance(batch, PackedBatch):
            states_ND: Tensor = self(batch, embedded_ND)
            return states_ND.index_select(0, batch.lengths_B.cumsum(0) - 1)
        states_ND, masks = self._embed(batch, embedded_ND)
        for block in self.blocks[:-1]:
            states_ND = block(states_ND, batch, masks)
        final = self.blocks[-1]
        assert isinstance(final, Block)
        return final.last(states_ND, batch.groups, masks).index_select(0, batch.slot_B)

    def alone(self, items_L: Tensor) -> Tensor:
        """Return the last block's states of one row without padding, [L, D], in evaluation.

        `forward` without its groups and masks: for a row or two they take longer than the arithmetic.

        Args:
            items_L: item indices, no more than the window.
        """
        states_LD: Tensor = self.norm(self.item_embedding(items_L) + self.position_embedding.weight[-len(items_L) :])
        for block in self.blocks:
            assert isinstance(block, Block)
            states_LD = block.alone(states_LD)
        return states_LD

    @torch.no_grad()
    def draw_padding(self) -> None:
        """Give padding a vector of its own in place of zeros; like those, it is never learned."""
        nn.init.normal_(self.item_embedding.weight[PADDING], std=_INIT_STD)

    def look_up_items(self, items_N: Tensor) -> Tensor:
        """Return item embeddings, [N, D]; that of padding is never learned."""
        return look_up(self.item_embedding.weight, items_N, PADDING)

    def _embed(self, batch: Layout, embedded_ND: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the first block reads, and the attention's masks."""
        if embedded_ND is None:
            embedded_ND = self.look_up_items(batch.items_N)
        # Right-aligned: a row's last item stands at the window's last position.
        placed_ND = embedded_ND + look_up(self.position_embedding.weight, self.window - 1 - batch.age_N)
        states_ND = self.dropout(self.norm(placed_ND))
        return states_ND, batch.masks(states_ND.dtype)


class Block(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, the residual and LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers."""
        super().__init__()
        width = config.hidden_size
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, states_ND: Tensor, batch: Layout, masks: list[Tensor]) -> Tensor:
        """Transform the states, [N, D] to [N, D]."""
        return self._feed_forward(states_ND, self.attention(states_ND, batch, masks))

    def last(self, states_ND: Tensor, groups: tuple[Group, ...], masks: list[Tensor]) -> Tensor:
        """Transform the states at the last position of each row, [N, D] to [B, D], in the order of the groups."""
        return self._feed_forward(*self.attention.last(states_ND, groups, masks))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Transform the states of one row without padding, [L, D] to [L, D]."""
        return self._feed_forward(states_LD, self.attention.alone(states_LD))

    def _feed_forward(self, states_ND: Tensor, attended_ND: Tensor) -> Tensor:
        states_ND = self.attention_norm(states_ND + self.dropout(attended_ND))
        widened_ND = self.dropout(self.down(F.gelu(self.up(states_ND))))
        normed: Tensor = self.feed_forward_norm(states_ND + widened_ND)
        return normed


class Attention(nn.Module):
    """Causal multi-head attention, a group at a time or over chunks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create the projections; query, key and value are one matrix."""
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states_ND: Tensor, batch: Layout, masks: list[Tensor]) -> Tensor:
        """Attend inside each row, [N, D] to [N, D]."""
        projected = self.query_key_value(states_ND)
        if isinstance(batch, PackedBatch):
            context_ND = attend_chunks(projected, masks[0], self.num_heads, self.dropout if self.training else 0.0)
        else:
            context_ND = self._attend_groups(projected, batch.groups, masks)
        attended: Tensor = self.out(context_ND)
        return attended

    def _attend_groups(self, projected: Tensor, groups: tuple[Group, ...], masks: list[Tensor]) -> Tensor:
        parts = torch.split(projected, [group.size for group in groups])
        drops = self._drops([(group.rows, group.length, group.length) for group in groups], projected.device)
        return torch.cat([self._attend(*inputs) for inputs in zip(parts, groups, masks, drops, strict=True)])

    def last(self, states_ND: Tensor, groups: tuple[Group, ...], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Attend from the last position of each row.

        Returns:
            Those positions' states and what they attend to, [B, D] each, in the order of the groups.
        """
        split, width = [group.size for group in groups], states_ND.shape[1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        rows = [
            states.view(group.rows, group.length, width)[:, -1]
            for states, group in zip(torch.split(states_ND, split), groups, strict=True)
        ]
        states_BD = torch.cat(rows)
        queries = torch.split(F.linear(states_BD, weight[:width], bias[:width]), [group.rows for group in groups])
        keys_values = torch.split(F.linear(states_ND, weight[width:], bias[width:]), split)
        seen = [mask_BLL[:, -1:] for mask_BLL in masks]
        drops = self._drops([(group.rows, 1, group.length) for group in groups], states_ND.device)
        parts = zip(queries, keys_values, groups, seen, drops, strict=True)
        contexts = [self._attend_last(*inputs) for inputs in parts]
        return states_BD, self.out(torch.cat(contexts))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Attend inside one row without padding, without dropout, [L, D] to [L, D]."""
        length = len(states_LD)
        heads_3HLd = self.query_key_value(states_LD).view(length, 3, self.num_heads, -1).permute(1, 2, 0, 3)
        # As a batch of one: PyTorch has no fused kernel for three axes.
        query, key, value = heads_3HLd.unsqueeze(1).unbind()
        context_1HLd = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended: Tensor = self.out(context_1HLd.transpose(1, 2).reshape(length, -1))
        return attended

    def _attend_last(
        self, queries_BD: Tensor, keys_values: Tensor, group: Group, mask_B1L: Tensor, drop: Tensor | None
    ) -> Tensor:
        query_HB1d = queries_BD.view(group.rows, 1, self.num_heads, -1).permute(2, 0, 1, 3)
        key, value = keys_values.view(group.rows, group.length, 2, self.num_heads, -1).permute(2, 3, 0, 1, 4).unbind()
        return self._mix(query_HB1d, key, value, mask_B1L, drop).permute(1, 2, 0, 3).reshape(group.rows, -1)

    def _drops(self, shapes: list[tuple[int, int, int]], device: torch.device) -> list[Tensor] | list[None]:
        """Dropout masks of attention weights of these shapes (rows, queries, keys), where we draw them ourselves."""
        if not self.training or self.dropout == 0 or device.type != "cpu":
            return [None] * len(shapes)
        return dropout_masks([(self.num_heads * rows, *weights) for rows, *weights in shapes], self.dropout)

    def _attend(self, projected: Tensor, group: Group, mask_BLL: Tensor, drop: Tensor | None) -> Tensor:
        heads = projected.view(group.rows, group.length, 3, self.num_heads, -1).permute(2, 3, 0, 1, 4)
        return self._mix(heads[0], heads[1], heads[2], mask_BLL, drop).permute(1, 2, 0, 3).reshape(group.size, -1)

    def _mix(
        self, query_HBQd: Tensor, key_HBLd: Tensor, value_HBLd: Tensor, mask_BQL: Tensor, drop: Tensor | None
    ) -> Tensor:
        """Attend, [H, B, Q, d], with given dropout on the weights or PyTorch's."""
        if drop is not None:
            return _attend_dropping(query_HBQd, key_HBLd, value_HBLd, mask_BQL, drop)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            query_HBQd, key_HBLd, value_HBLd, attn_mask=mask_BQL[None], dropout_p=dropout
        )


def _attend_dropping(
    query_HBQd: Tensor, key_HBLd: Tensor, value_HBLd: Tensor, mask_BQL: Tensor, drop: Tensor
) -> Tensor:
    """Attention with given dropout on its weights; PyTorch's fused kernel for CPUs has no dropout."""
    query, key, value = (heads.flatten(0, 1) for heads in (query_HBQd, key_HBLd, value_HBLd))
    mask = mask_BQL.repeat(len(query_HBQd), 1, 1)
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=1 / math.sqrt(query.shape[-1]))
    return torch.bmm(scores.softmax(-1) * drop, value).view(query_HBQd.shape)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].detach())
