"""Neighbours of items, found when training has ended, and how much they add to scores, chosen on the validation split.

The vectors of items are too short to hold every pair of items that belongs together, above all of rare items.
"""

import logging
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elcrec.config import NeighbourConfig
from elcrec.data.dataset import EvaluationSet
from elcrec.data.evenly import evenly_spread
from elcrec.data.ragged import Ragged
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.neighbours import Neighbours
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.neighbours import Weights, co_occurrences, foretell, strongest
from elcrec.progress import track
from elcrec.training.data import MOST_USERS, TrainingData

logger = logging.getLogger(__name__)

_ITEMS_AT_ONCE = 256
_MOST_ASKED = 10_000
"""Number of users on whom a strength is chosen: more would change it little."""
_STRENGTHS = (0, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""What a weight of 1 adds to a score. Scores are logits, so a useful strength has their size."""


class Strength(NamedTuple):
    """A strength, and the validation NDCG@20 that it reaches on the users asked."""

    strength: float
    ndcg: float


def add_neighbours(
    model: SequenceModel,
    data: TrainingData,
    valid: EvaluationSet,
    config: NeighbourConfig,
    *,
    seed: int,
    quiet: bool = False,
) -> Strength:
    """Find the items' neighbours and let the model know them, unless they make the validation worse.

    Args:
        model: the trained model.
        data: the training data; of its users at most a million are read.
        valid: the evaluation set of the validation split; at most 10,000 users of it are asked.
        config: the section `train.neighbours`; `kept` is not 0.
        seed: seeds the choice of users.
        quiet: whether to show no progress.

    Returns:
        What was chosen; with a strength of 0 the model stays as it is.
    """
    histories = data.sample(MOST_USERS, torch.Generator().manual_seed(seed))
    neighbours = _find(histories.tail(model.config.encoder.window), model.num_items, config, quiet=quiet)
    asked = valid.take(evenly_spread(len(valid.users), _MOST_ASKED))
    best = _choose(model, neighbours.to(model.device), asked, quiet=quiet)
    logger.info("neighbours of items: strength %g has the best validation ndcg@20, %.4f", *best)
    if best.strength:
        model.know(neighbours.times(best.strength))
    return best


def _find(histories: Ragged, num_items: int, config: NeighbourConfig, *, quiet: bool) -> Neighbours:
    counts = co_occurrences(histories.values, histories.offsets, num_items)
    known = np.flatnonzero(counts.items_V)
    blocks = np.split(known, range(_ITEMS_AT_ONCE, len(known), _ITEMS_AT_ONCE))
    found = (foretell(counts, block, config.candidates, config.penalty) for block in blocks)
    weights = Weights.joined(track(found, total=len(blocks), label="neighbours", quiet=quiet, step=_ITEMS_AT_ONCE))
    items_VK, weights_VK = map(torch.from_numpy, strongest(weights, num_items, config.kept))
    return Neighbours.of(items_VK, weights_VK)


def _choose(model: SequenceModel, neighbours: Neighbours, asked: EvaluationSet, *, quiet: bool) -> Strength:
    """Return the strength with the highest NDCG@20, the smallest of equal ones."""
    histories = asked.histories.tail(model.config.encoder.window)
    question = model.encode(asked.histories, intents=False).vectors, model.item_vectors(), asked.excluded
    best = Strength(0, -1)
    for strength in track(_STRENGTHS, total=len(_STRENGTHS), label="strengths of neighbours", quiet=quiet):
        tried = neighbours.times(strength)

        def add(scores_BV: Tensor, rows: slice, tried: Neighbours = tried) -> None:
            tried.additions(histories.part(rows)).onto(scores_BV)

        ranking = rank_targets(*question, asked.target_items, add=add, top_k=0)
        ndcg = mean_metrics(ranking.ranks)["ndcg@20"]
        logger.debug("neighbours at strength %g: %.4f", strength, ndcg)
        best = max(best, Strength(strength, ndcg), key=lambda each: each.ndcg)
    return best
