"""L_cluster: pushes centres apart, and pulls behaviours towards all centres.

Source: Liu et al., "End-to-end Learnable Clustering for Intent Learning in Recommendation" (NeurIPS 2024).

Axes: `B` sequences, `T` window, `D` hidden size, `K` intents.
"""

import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.model.intents import spherical
from elcrec.training.step import Context
from elcrec.training.terms.term import Need, Term


class Cluster(Term):
    """L_cluster over the batch's behaviours: the mean states of sequences, or of windows if padding counts."""

    needs: frozenset[Need] = frozenset({"states"})
    intents = ("learned",)

    def __init__(self, name: str, config: TrainConfig) -> None:
        """Request an empty window if padding counts."""
        super().__init__(name, config)
        if config.padding == "counted":
            self.needs |= {"padding"}

    def __call__(self, context: Context) -> Tensor:
        """Return the loss between all behaviours and all centres."""
        assert context.model.intents is not None
        behaviours_BD = context.states.means("inputs")
        if context.padding_TD is not None:
            lengths_B = context.states.rows.lengths_B[: len(behaviours_BD)]
            behaviours_BD = window_means(behaviours_BD, lengths_B, context.padding_TD)
        return cluster_loss(spherical(behaviours_BD), context.model.intents.centers_KD)


def window_means(means_BD: Tensor, lengths_B: Tensor, padding_TD: Tensor) -> Tensor:
    """Return the mean state over whole windows, [B, D], from the rows' own means and the states of padding."""
    window = len(padding_TD)
    stands_before_BT = torch.arange(window, device=lengths_B.device) < window - lengths_B[:, None]
    return torch.addmm(means_BD * lengths_B[:, None], stands_before_BT.to(means_BD.dtype), padding_TD) / window


def cluster_loss(behaviours_BD: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the mean of |h - c|^2 over all pairs (h, c) minus the mean of |c - c'|^2 over all pairs of centres.

    It is multiplied out, so that it costs O((B + K) D) instead of O(B K D + K^2 D). The pairs i = j of the second mean
    are included, as in the published code; with unit vectors the value is 2 |mean c|^2 - 2 mean(h) . mean(c).
    """
    mean_center_D = centers_KD.mean(0)
    norms = behaviours_BD.square().sum() / len(behaviours_BD) - centers_KD.square().sum() / len(centers_KD)
    return norms + 2 * mean_center_D @ (mean_center_D - behaviours_BD.mean(0))
