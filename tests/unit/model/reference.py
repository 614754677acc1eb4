"""The model written plainly: one row at a time, from the definitions, for comparison with the fast one."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from elcrec.model.encoder import Encoder


def encode_row(encoder: Encoder, items: list[int]) -> Tensor:
    """States of one unpadded row without dropout, [T, D]: SASRec's post-norm block, term by term."""
    places = torch.arange(encoder.window - len(items), encoder.window)
    embedded = encoder.item_embedding.weight[items] + encoder.position_embedding.weight[places]
    states = _norm(encoder.norm, embedded)
    for block in encoder.blocks:
        states = _norm(block.attention_norm, states + _attend(block.attention, states, items))
        inner = block.up(states)
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        states = _norm(block.feed_forward_norm, states + block.down(inner))
    return states


def _attend(attention: torch.nn.Module, states: Tensor, items: list[int]) -> Tensor:
    query, key, value = attention.query_key_value(states).chunk(3, dim=1)
    width = states.shape[1] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        rows = []
        for place in range(len(items)):
            seen = [other for other in range(place + 1) if items[other] != 0] or [place]
            scores = torch.stack([query[place, part] @ key[other, part] / math.sqrt(width) for other in seen])
            rows.append(scores.softmax(0) @ value[seen, part])
        heads.append(torch.stack(rows))
    return attention.out(torch.cat(heads, dim=1))


def _norm(layer: torch.nn.LayerNorm, states: Tensor) -> Tensor:
    centred = states - states.mean(1, keepdim=True)
    return layer.weight * centred / (centred.square().mean(1, keepdim=True) + layer.eps).sqrt() + layer.bias


def flattened_similarities(rows: list[Tensor], window: int) -> Tensor:
    """Dot products of right-aligned, zero-padded, flattened rows."""
    flat = torch.stack([F.pad(row, (0, 0, window - len(row), 0)).flatten() for row in rows])
    return flat @ flat.T
