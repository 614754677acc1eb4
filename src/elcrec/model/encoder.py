"""The SASRec encoder: item and position embeddings, then post-norm blocks.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), in the post-norm form with exact
GELU that ICLRec and ELCRec use.

Axes: `B` rows, `N` flat positions, `D` hidden size, `L` items of a row alone.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elcrec.config import EncoderConfig
from elcrec.data.dataset import PADDING
from elcrec.model.layout import Layout
from elcrec.model.mixer import Mixer
from elcrec.ops.dropout import Dropout
from elcrec.ops.lookup import look_up
from elcrec.registry import MIXERS, load

_INIT_STD = 0.02
_NORM_EPS = 1e-12


class Encoder(nn.Module):
    """The encoder: from the items of a batch to a state for every position."""

    def __init__(self, config: EncoderConfig, num_items: int) -> None:
        """Create the layers, with weights drawn from N(0, 0.02) and zero biases."""
        super().__init__()
        self.window = config.window
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_size, padding_idx=PADDING)
        knows_places = load(MIXERS[config.mixer]).knows_places
        self.position_embedding = None if knows_places else nn.Embedding(config.window, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.apply(_initialise)

    def forward(self, rows: Layout, embedded_ND: Tensor | None = None) -> Tensor:
        """Return the last block's state at every flat position, [N, D]; values at padded positions are meaningless.

        No row is longer than the window. `embedded_ND` are the item embeddings, if the caller already has them.
        """
        states_ND, masks = self._embed(rows, embedded_ND)
        for block in self._blocks():
            states_ND = block(states_ND, rows, masks)
        return states_ND

    def last(self, rows: Layout, embedded_ND: Tensor | None = None) -> Tensor:
        """Return the last block's state at the last item of each row, [B, D]: all that a ranking needs."""
        states_ND, masks = self._embed(rows, embedded_ND)
        *earlier, final = self._blocks()
        for block in earlier:
            states_ND = block(states_ND, rows, masks)
        last_BD: Tensor = final.last(states_ND, rows, masks)
        return last_BD

    def alone(self, items_L: Tensor) -> Tensor:
        """Return the last block's states of one row without padding, no longer than the window, in evaluation, [L, D].

        This is `forward` without layout and masks, which for a row or two take longer than the arithmetic.
        """
        states_LD = self._embed_alone(items_L)
        for block in self._blocks():
            states_LD = block.alone(states_LD)
        return states_LD

    def last_alone(self, items_L: Tensor) -> Tensor:
        """Return the result of `alone` at the last item, [1, D]."""
        states_LD = self._embed_alone(items_L)
        *earlier, final = self._blocks()
        for block in earlier:
            states_LD = block.alone(states_LD)
        return final.last_alone(states_LD)

    def _embed_alone(self, items_L: Tensor) -> Tensor:
        embedded_LD = self.item_embedding.weight.index_select(0, items_L)
        if self.position_embedding is not None:
            embedded_LD = embedded_LD + self.position_embedding.weight[-len(embedded_LD) :]
        normed: Tensor = self.norm(embedded_LD)
        return normed

    @torch.no_grad()
    def draw_padding(self) -> None:
        """Give padding a random vector instead of zeros; like zeros, it is never learned."""
        nn.init.normal_(self.item_embedding.weight[PADDING], std=_INIT_STD)

    def _blocks(self) -> "Iterable[Block]":
        return cast("Iterable[Block]", self.blocks)

    def _embed(self, rows: Layout, embedded_ND: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the input of the first block, and the masks of attention."""
        if embedded_ND is None:
            embedded_ND = look_up(self.item_embedding.weight, rows.items_N, PADDING)
        if self.position_embedding is not None:
            # Right-aligned: a row's last item is at the window's last position.
            embedded_ND = embedded_ND + look_up(self.position_embedding.weight, self.window - 1 - rows.ages_N)
        states_ND = self.dropout(self.norm(embedded_ND))
        return states_ND, rows.masks(states_ND.dtype)


class Block(nn.Module):
    """A mixer and a feed-forward network, each followed by dropout, the residual and LayerNorm.

    With a branch, a second mixer runs in parallel. The result is a mean of both, each normalised, or, without a share,
    the normalised sum. A branch that passes the states through preserves what attention smooths away (Shin et al., "An
    Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024, use a filter there).
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Create the layers."""
        super().__init__()
        width = config.hidden_size
        self.mixer: Mixer = load(MIXERS[config.mixer])(config)
        self.mixer_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.branch: Mixer | None = None
        self._share = config.branch_share
        if config.branch:
            self.branch = load(MIXERS[config.branch])(config)
            if self._share is not None:
                self.branch_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Transform the states of all positions, [N, D] to [N, D]."""
        return self._transformed(states_ND, lambda mixer: mixer(states_ND, rows, masks))

    def last(self, states_ND: Tensor, rows: Layout, masks: list[Tensor]) -> Tensor:
        """Return the result of `forward` at the last item of each row, [B, D]."""
        return self._transformed(rows.of_ends(states_ND), lambda mixer: mixer.last(states_ND, rows, masks))

    def alone(self, states_LD: Tensor) -> Tensor:
        """Return the result of `forward` for one row without padding, in evaluation, [L, D] to [L, D]."""
        return self._transformed(states_LD, lambda mixer: mixer.alone(states_LD))

    def last_alone(self, states_LD: Tensor) -> Tensor:
        """Return the result of `alone` at the last item, [L, D] to [1, D]."""
        return self._transformed(states_LD[-1:], lambda mixer: mixer.last_alone(states_LD))

    def _transformed(self, states_ND: Tensor, mix: Callable[[Mixer], Tensor]) -> Tensor:
        mixed_ND = self._mixed(states_ND, mix)
        widened_ND = self._dropped(self.down(F.gelu(self.up(mixed_ND))))
        normed: Tensor = self.feed_forward_norm(mixed_ND + widened_ND)
        return normed

    def _dropped(self, states_ND: Tensor) -> Tensor:
        """Apply dropout; in evaluation, calling the module takes a tenth of the time of a matrix product."""
        return self.dropout(states_ND) if self.training else states_ND

    def _mixed(self, states_ND: Tensor, mix: Callable[[Mixer], Tensor]) -> Tensor:
        """Mix, add to the states and normalise."""
        added_ND = states_ND + self._dropped(mix(self.mixer))
        changed_ND = None if self.branch is None else self._dropped(mix(self.branch))
        if changed_ND is not None and self._share is None:
            added_ND = added_ND + changed_ND
        mixed_ND: Tensor = self.mixer_norm(added_ND)
        if changed_ND is not None and self._share is not None:
            mixed_ND = torch.lerp(mixed_ND, self.branch_norm(states_ND + changed_ND), self._share)
        return mixed_ND


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].detach())
