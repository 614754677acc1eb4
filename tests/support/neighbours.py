"""Neighbours of items at random, and scores with them by hand."""

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


def scores_by_hand(model: SequenceModel, row: list[int]) -> npt.NDArray[np.float32]:
    """The score of every item after a history, one neighbour at a time, [V + 1]."""
    with torch.inference_mode():
        vector_D = model.encode(Ragged.from_rows([row])).vectors[0]
        scores: npt.NDArray[np.float32] = (model.item_vectors() @ vector_D).numpy()
    if model.neighbours is not None:
        items, weights = model.neighbours.items_VK.tolist(), model.neighbours.weights_VK.tolist()
        for item in set(row[-model.config.encoder.window :]):
            for neighbour, weight in zip(items[item], weights[item], strict=True):
                scores[neighbour] += weight
    return scores
