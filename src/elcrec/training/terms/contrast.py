"""L_seq and L_intent: contrast of two views of a sequence, and of views with the centres of intents.

Source: Chen et al., "Intent Contrastive Learning for Sequential Recommendation" (WWW 2022); with intents, Liu et al.,
"End-to-end Learnable Clustering for Intent Learning in Recommendation" (NeurIPS 2024). L_seq without intents is that of
CL4SRec (Xie et al., ICDE 2022) with mean states in place of last ones.

Axes: `B` sequences, `R` rows, `M` items, `N` states, `D` hidden size, `X` window of states; `2` is views.
"""

import torch
from torch import Tensor

from elcrec.model.intents import Intents, LearnedIntents, SequenceIntents
from elcrec.ops.losses import info_nce
from elcrec.training.step import Context
from elcrec.training.terms.term import Need, Term


class SequenceContrast(Term):
    """L_seq: each view must find the other view of its sequence among all views of the batch."""

    weight = 0.1
    needs: frozenset[Need] = frozenset({"states", "views"})

    def __call__(self, context: Context) -> Tensor:
        """Return the contrast of mean states, or, with encoded padding, of whole windows position by position."""
        rows, fused_MD = context.states.rows_of("views"), self._fuse(context.model.intents, context.states.of("views"))
        if self.config.padding != "encoded":
            mean_RD = rows.mean(fused_MD)
            return info_nce(mean_RD @ mean_RD.T, self.config.views.temperature)
        window = self.config.encoder.window
        # The published code sums the products of the T positions instead of taking their mean (docs/adr/0004).
        windows_RX = fused_MD[: len(rows.lengths_B) * window].view(len(rows.lengths_B), -1)
        return info_nce(windows_RX @ windows_RX.T / window, self.config.views.temperature)

    def _fuse(self, intents: Intents | None, states_ND: Tensor) -> Tensor:
        """Fuse every state with its nearest centre, if centres are learned."""
        fusion = self.config.intents.fusion
        if fusion == "none" or not isinstance(intents, LearnedIntents):
            return states_ND
        nearest_ND = intents.lookup(intents.nearest(states_ND))
        return states_ND + nearest_ND if fusion == "shift" else torch.cat((states_ND, nearest_ND), dim=1)


class IntentContrast(Term):
    """L_intent: each view must find the centre of its sequence's intent among the centres and views of the batch."""

    weight = 0.1
    needs: frozenset[Need] = frozenset({"states", "views"})
    intents = ("learned", "clustered")

    def __call__(self, context: Context) -> Tensor:
        """Return the contrast of pooled views with the centre nearest to their sequence's mean state."""
        intents, states = context.model.intents, context.states
        assert isinstance(intents, SequenceIntents)
        nearest_B = intents.nearest(states.means("inputs"))
        views_2BD = states.means("views").view(2, len(nearest_B), -1)
        groups_B = nearest_B if self.config.intents.mask_same_intent else None
        return intent_loss(views_2BD, intents.lookup(nearest_B), self.config.intents.temperature, groups_B)


def intent_loss(views_2BD: Tensor, centers_BD: Tensor, temperature: float, intents_B: Tensor | None = None) -> Tensor:
    """InfoNCE between pooled states and the centres of their sequences' intents, the mean of both views.

    Args:
        views_2BD: pooled state of the first view of each sequence, then of the second.
        centers_BD: the centre nearest to each sequence.
        temperature: divides the similarities.
        intents_B: index of that centre; if given, sequences of the same intent are not contrasted (false negative
            mitigation, ICLRec).
    """
    rows_2RD = torch.cat((views_2BD, centers_BD.expand_as(views_2BD)), dim=1)
    return info_nce(rows_2RD @ rows_2RD.mT, temperature, None if intents_B is None else intents_B.repeat(2))
