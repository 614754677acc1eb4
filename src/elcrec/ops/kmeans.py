"""K-means clustering on the device of the points.

Axes: `N` points, `D` their size, `K` clusters.
"""

import torch
from torch import Tensor

_ITERATIONS = 20
_ASSIGN_BLOCK = 16384


def kmeans(points_ND: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Run Lloyd's algorithm from K distinct random points; return the centres, [K, D]. Empty clusters keep theirs."""
    chosen = torch.randperm(len(points_ND), generator=generator)[:num_clusters]
    centers_KD = points_ND[chosen.to(points_ND.device)].clone()
    for _ in range(_ITERATIONS):
        sums_KD, counts_K = torch.zeros_like(centers_KD), centers_KD.new_zeros(num_clusters)
        for block_ND in torch.split(points_ND, _ASSIGN_BLOCK):
            nearest_N = (block_ND @ centers_KD.T - 0.5 * centers_KD.square().sum(1)).argmax(1)
            sums_KD.index_add_(0, nearest_N, block_ND)
            counts_K += torch.bincount(nearest_N, minlength=num_clusters)
        means_KD = sums_KD / counts_K.clamp(min=1)[:, None]
        centers_KD = torch.where(counts_K[:, None] > 0, means_KD, centers_KD)
    return centers_KD
