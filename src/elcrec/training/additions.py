"""What is added to the products of vectors, found when training has ended and as strong as the validation split wants.

The vectors of items are too short to hold every pair of items that belongs together, above all of rare items, and know
nothing of when an item was popular.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from elcrec.config import NeighbourConfig, TrainConfig
from elcrec.data.dataset import EvaluationSet
from elcrec.data.evenly import evenly_spread
from elcrec.data.ragged import Ragged
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.neighbours import Neighbours
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.counts import followers, late_popularity
from elcrec.ops.neighbours import Weights, co_occurrences, foretell, strongest
from elcrec.progress import track
from elcrec.training.data import MOST_USERS, TrainingData

logger = logging.getLogger(__name__)

_ITEMS_AT_ONCE = 256
_MOST_ASKED = 20_000
"""Number of users on whom a strength is chosen: more would change it little."""
_NEIGHBOUR_STRENGTHS = (0, 4, 8, 16, 24, 32, 48)
"""What a weight of 1 adds to a score. Scores are logits, so a useful strength has their size."""
_COUNT_STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2)
"""Factors of the logarithms of counts: with 1, an item's odds are multiplied by its count."""

Adder = Callable[[Tensor, slice], object]
"""Adds to the scores of a range of histories, in place."""


class Strength(NamedTuple):
    """A strength, and the validation NDCG@20 that it reaches on the users asked."""

    strength: float
    ndcg: float


def add_to_scores(
    model: SequenceModel, data: TrainingData, valid: EvaluationSet, config: TrainConfig, *, quiet: bool = False
) -> dict[str, Strength]:
    """Find what adds to scores, one after the other, and let the model know what makes the validation better.

    Args:
        model: the trained model.
        data: the training data; of its users at most a million are read.
        valid: the evaluation set of the validation split; at most 20,000 users of it are asked.
        config: its sections `neighbours` and `counts` say what is added, `seed` seeds the choice of users.
        quiet: whether to show no progress.

    Returns:
        What was chosen of `neighbours`, `followers` and `popularity`, as far as the configuration has them. The model
        knows nothing of what has a strength of 0.
    """
    counts, chosen = config.counts, dict[str, Strength]()
    if not (config.neighbours.kept or counts.followers or counts.popularity):
        return chosen
    sample = data.sample(MOST_USERS, torch.Generator().manual_seed(config.seed))
    histories = sample.tail(model.config.encoder.window)
    flat = histories.values, histories.offsets, model.num_items
    trial = _Trial(model, valid.take(evenly_spread(len(valid.users), _MOST_ASKED)), quiet=quiet)
    if config.neighbours.kept:
        found = _find(histories, model.num_items, config.neighbours, quiet=quiet).to(model.device)
        best = chosen["neighbours"] = trial.best("neighbours", trial.of_all(found), _NEIGHBOUR_STRENGTHS)
        if best.strength:
            model.know(neighbours=found.times(best.strength))
    if counts.followers:
        found = _strongest(followers(*flat), model.num_items, counts.followers).to(model.device)
        best = chosen["followers"] = trial.best("followers", trial.of_last(found), _COUNT_STRENGTHS)
        if best.strength:
            model.know(followers=found.times(best.strength))
    if counts.popularity:
        popularity_V = torch.from_numpy(late_popularity(*flat)).to(model.device)
        best = chosen["popularity"] = trial.best("popularity", _to_all(popularity_V), _COUNT_STRENGTHS)
        if best.strength:
            model.know(popularity_V=popularity_V * best.strength)
    return chosen


class _Trial:
    """Validation users, to whose scores something is added at several strengths, besides what the model knows."""

    def __init__(self, model: SequenceModel, asked: EvaluationSet, *, quiet: bool) -> None:
        """Encode the histories once."""
        self._asked, self._quiet = asked, quiet
        self._recent = asked.histories.tail(model.config.encoder.window)
        self._vectors = model.encode(asked.histories, intents=False).vectors, model.item_vectors()
        self._known = model.adder(asked.histories)

    def of_all(self, found: Neighbours) -> Callable[[float], Adder]:
        """Add the neighbours of all items of a history."""
        return self._of(found, self._recent)

    def of_last(self, found: Neighbours) -> Callable[[float], Adder]:
        """Add the neighbours of the last item of a history."""
        return self._of(found, self._recent.tail(1))

    def best(self, name: str, adder: Callable[[float], Adder], strengths: Sequence[float]) -> Strength:
        """Return the strength with the highest NDCG@20, the smallest of equal ones."""
        best = Strength(0, -1)
        for strength in track(strengths, total=len(strengths), label=f"strengths of {name}", quiet=self._quiet):
            tried = adder(strength)

            def add(scores_BV: Tensor, rows: slice, tried: Adder = tried) -> None:
                self._known(scores_BV, rows)
                tried(scores_BV, rows)

            ranking = rank_targets(*self._vectors, self._asked.excluded, self._asked.target_items, add=add, top_k=0)
            ndcg = mean_metrics(ranking.ranks)["ndcg@20"]
            logger.debug("%s at strength %g: %.4f", name, strength, ndcg)
            best = max(best, Strength(strength, ndcg), key=lambda each: each.ndcg)
        logger.info("%s: strength %g has the best validation ndcg@20, %.4f", name, *best)
        return best

    def _of(self, found: Neighbours, histories: Ragged) -> Callable[[float], Adder]:
        def at(strength: float) -> Adder:
            stronger = found.times(strength)
            return lambda scores_BV, rows: stronger.additions(histories.part(rows)).onto(scores_BV)

        return at


def _to_all(values_V: Tensor) -> Callable[[float], Adder]:
    """Add the same values to the scores of every history."""
    return lambda strength: lambda scores_BV, _: scores_BV.add_(values_V, alpha=strength)


def _find(histories: Ragged, num_items: int, config: NeighbourConfig, *, quiet: bool) -> Neighbours:
    counts = co_occurrences(histories.values, histories.offsets, num_items)
    blocks = counts.blocks(_ITEMS_AT_ONCE)
    found = (foretell(counts, block, config.candidates, config.penalty) for block in blocks)
    weights = Weights.joined(track(found, total=len(blocks), label="neighbours", quiet=quiet))
    return _strongest(weights, num_items, config.kept)


def _strongest(weights: Weights, num_items: int, kept: int) -> Neighbours:
    return Neighbours.of(*map(torch.from_numpy, strongest(weights, num_items, kept)))
