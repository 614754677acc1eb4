"""What is added to scores, at random, and scores with it by hand."""

import numpy as np
import numpy.typing as npt
import torch

from elcrec.data.ragged import Ragged
from elcrec.model.neighbours import Neighbours
from elcrec.model.sequence_model import SequenceModel


def random_neighbours(num_items: int, kept: int = 3, seed: int = 0) -> Neighbours:
    """Neighbours that matter as much as vectors; a few items have fewer than others."""
    random = np.random.default_rng(seed)
    items = np.array([random.permutation(num_items)[:kept] + 1 for _ in range(num_items + 1)], np.int32)
    items[random.random(items.shape) < 0.2] = 0
    items[0] = 0
    weights = np.where(items > 0, random.normal(size=items.shape), 0).astype(np.float32)
    return Neighbours.of(torch.from_numpy(items), torch.from_numpy(weights))


def know_at_random(model: SequenceModel) -> None:
    """Let a model know neighbours, followers and popularity, as if training had found them."""
    popularity_V = torch.from_numpy(np.random.default_rng(2).normal(size=model.num_items + 1).astype(np.float32))
    popularity_V[0] = 0
    model.know(
        neighbours=random_neighbours(model.num_items),
        followers=random_neighbours(model.num_items, kept=2, seed=1),
        popularity_V=popularity_V,
    )


def scores_by_hand(model: SequenceModel, row: list[int]) -> npt.NDArray[np.float32]:
    """The score of every item after a history, one neighbour at a time, [V + 1]."""
    with torch.inference_mode():
        vector_D = model.encode(Ragged.from_rows([row])).vectors[0]
        scores: npt.NDArray[np.float32] = (model.item_vectors() @ vector_D).numpy()
    for neighbours, of in ((model.neighbours, set(row[-model.config.encoder.window :])), (model.followers, row[-1:])):
        if neighbours is not None:
            items, weights = neighbours.items_VK.tolist(), neighbours.weights_VK.tolist()
            for item in of:
                for neighbour, weight in zip(items[item], weights[item], strict=True):
                    scores[neighbour] += weight
    if model.popularity_V is not None:
        scores += model.popularity_V.numpy()
    return scores
