"""K-means clustering on the device of the points.

Axes: `N` points, `D` their size, `K` clusters.
"""

import torch
from torch import Tensor

_ITERATIONS = 20
_ASSIGN_BLOCK = 16384
_STARTS = 4


def kmeans(points_ND: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Run Lloyd's algorithm from K distinct random points; return the centres, [K, D]. Empty clusters keep theirs."""
    chosen = torch.randperm(len(points_ND), generator=generator)[:num_clusters]
    centers_KD = points_ND[chosen.to(points_ND.device)].clone()
    for _ in range(_ITERATIONS):
        sums_KD, counts_K = torch.zeros_like(centers_KD), centers_KD.new_zeros(num_clusters)
        for block_ND in torch.split(points_ND, _ASSIGN_BLOCK):
            nearest_N = nearest(block_ND, centers_KD)
            sums_KD.index_add_(0, nearest_N, block_ND)
            counts_K += torch.bincount(nearest_N, minlength=num_clusters)
        means_KD = sums_KD / counts_K.clamp(min=1)[:, None]
        centers_KD = torch.where(counts_K[:, None] > 0, means_KD, centers_KD)
    return centers_KD


def best_kmeans(points_ND: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Run k-means from several random starts; return the centres with the least squared distance, [K, D]."""
    runs = [kmeans(points_ND, num_clusters, generator) for _ in range(_STARTS)]
    return min(runs, key=lambda centers_KD: float(_distance(points_ND, centers_KD)))


def _distance(points_ND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the sum of squared distances of the points from their nearest centres."""
    return sum(
        (
            (block_ND - centers_KD[nearest(block_ND, centers_KD)]).square().sum()
            for block_ND in torch.split(points_ND, _ASSIGN_BLOCK)
        ),
        start=points_ND.new_zeros(()),
    )


def nearest(points_ND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the index of each point's nearest centre, [N]."""
    # On CPUs, max is faster than argmax.
    return torch.addmm(half_norms(centers_KD), points_ND, centers_KD.T, beta=-1).max(1).indices


def half_norms(centers_KD: Tensor) -> Tensor:
    """Return half the squared length of each centre, [K]; products minus this order the centres by nearness."""
    return centers_KD.square().sum(1) / 2
