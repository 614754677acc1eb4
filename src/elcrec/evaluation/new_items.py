"""Evaluation of vectors for new items, and of the cost of new items for the others.

A share of the trained items is treated as new: their trained vectors are replaced by those that the sources give, from
a few interactions and the text. The same users are then answered in three ways.

- `unknown`: new items are unknown, as without this feature: no answer and no history has them.
- `given`: new items that a source knows are ranked and read with the given vector.
- `trained`: the model as it is.

The vectors of the other items were trained together with the held-out ones, which makes `given` look slightly too good.
Vectors are made without any data of the test split.

Axes: `N` test users, `V` items.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from elcrec.config import EvaluateConfig, NewItemsConfig, RulesConfig
from elcrec.data.dataset import PADDING, EvaluationSet, SequenceData
from elcrec.data.ragged import Ragged
from elcrec.evaluation.bootstrap import Bootstrap, Estimate, bootstrap
from elcrec.evaluation.metrics import HEADLINE
from elcrec.evaluation.popularity import rank_by_popularity
from elcrec.evaluation.rules import answer_lists, ranks_in
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.item_facts import ItemFacts
from elcrec.ranking.new_items import with_vectors
from elcrec.ranking.new_vectors import Clues, Flags, give_vectors
from elcrec.ranking.rules import Rules

Ints = npt.NDArray[np.int64]

HELD_OUT, NEVER_TRAINED, OTHERS = "held out", "never trained", "others"
GROUPS = (HELD_OUT, NEVER_TRAINED, OTHERS)
WORLDS = ("given", "popularity", "trained", "unknown")
"""Ways to answer the users; in `popularity`, a held-out item counts only the interactions that sources may read."""
_HASHES = 1 << 64


@dataclass(frozen=True, kw_only=True)
class NewItemFindings:
    """The report's segment of new items.

    Attributes:
        resampled: metrics by group of the users' targets, those of `GROUPS` that have any user; by `WORLDS`.
        held_out: number of trained items that were treated as new.
        known: number of these that got a vector from a source.
        rows: one per group and world: users, HR@20 and NDCG@20 with their intervals.
        published: number of new items in the bundle.
    """

    resampled: dict[str, Bootstrap]
    held_out: int
    known: int
    rows: list[dict[str, Any]]
    published: int = 0

    def numbers(self) -> dict[str, float]:
        """Return the numbers of metrics.json, only a few if no test user's target was held out."""
        numbers: dict[str, float] = {"new_items": self.published}
        if HELD_OUT in self.resampled:
            drawn = self.resampled[HELD_OUT]
            for metric in HEADLINE:
                found = drawn.estimate("given", metric)
                name = f"new_items_{metric}"
                numbers |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
                numbers |= {f"new_items_{each}_{metric}": drawn.means[each][metric] for each in WORLDS[1:3]}
        cost = self.cost_of_others
        if cost is not None:
            name = "new_items_others_delta_ndcg@20"
            numbers |= {name: cost.mean, f"{name}_low": cost.low, f"{name}_high": cost.high}
        return numbers

    @property
    def cost_of_others(self) -> Estimate | None:
        """NDCG@20 of the users who choose a trained item: `given` minus `unknown`; `None` if there are none."""
        return self.resampled[OTHERS].difference("given", "unknown", "ndcg@20") if OTHERS in self.resampled else None


def measure_new_items(
    config: EvaluateConfig,
    model: SequenceModel,
    data: SequenceData,
    test: EvaluationSet,
    counts: Ints,
    item_ids: Sequence[str],
    texts_V: Sequence[str] | None,
) -> NewItemFindings:
    """Evaluate every test user in each of `WORLDS`.

    Args:
        config: the section `evaluate`.
        model: the trained model.
        data: the sequences.
        test: the evaluation set of the test split, N users.
        counts: training count of each item, [V + 1].
        item_ids: raw ids of items 1 to V.
        texts_V: text of each item, [V + 1]; `None` if no source reads it.
    """
    new = _as_if_new(config.new_items, model, data, counts, item_ids, texts_V)
    seen = np.where(new.held_V, np.minimum(counts, config.new_items.held_out_seen), counts)
    ranks: dict[str, npt.NDArray[np.integer]] = {
        "given": _ranks(config, new.model, test, new.unknown_V & ~new.given_V, new.given_V),
        "popularity": rank_by_popularity(seen, test.excluded, test.target_items, block_users=config.block_users),
        "trained": _ranks(config, model, test, np.zeros_like(new.given_V)),
        "unknown": _ranks(config, model, test, new.unknown_V),
    }
    member = np.where(new.held_V[test.target_items], 0, np.where(new.unknown_V[test.target_items], 1, 2))
    sizes = np.bincount(member, minlength=len(GROUPS)).tolist()
    resampled = {
        group: _resample(config, ranks, member == number) for number, group in enumerate(GROUPS) if sizes[number]
    }
    users = dict(zip(GROUPS, sizes, strict=True))
    return NewItemFindings(
        resampled=resampled,
        held_out=int(new.held_V.sum()),
        known=int((new.held_V & new.given_V).sum()),
        rows=[_row(group, users[group], world, drawn) for group, drawn in resampled.items() for world in WORLDS],
    )


def held_out(item_ids: Sequence[str], share: float) -> Flags:
    """Choose items by a hash of their raw ids, the same for every model and log, [V + 1]."""
    bound = round(share * _HASHES)
    hashes = (hashlib.sha256(item_id.encode()).digest()[:8] for item_id in item_ids)
    return np.array([False, *(int.from_bytes(each, "big") < bound for each in hashes)])


@dataclass(frozen=True, kw_only=True)
class _AsIfNew:
    """The model with items held out: which are held out, which are unknown, and which of these got a vector."""

    model: SequenceModel
    held_V: Flags
    unknown_V: Flags
    given_V: Flags


def _as_if_new(
    options: NewItemsConfig,
    model: SequenceModel,
    data: SequenceData,
    counts: Ints,
    item_ids: Sequence[str],
    texts_V: Sequence[str] | None,
) -> _AsIfNew:
    trained_V = counts > 0
    held_V = held_out(item_ids, options.held_out) & trained_V
    unknown_V = held_V | ~trained_V
    unknown_V[PADDING] = False
    vectors_VD = model.item_embeddings().cpu().numpy().copy()
    clues = Clues(histories=data.before_test(), texts_V=texts_V, most=options.held_out_seen)
    given = give_vectors(options, clues, vectors_VD, trained_V & ~held_V, unknown_V)
    given_V = np.zeros_like(unknown_V)
    vectors_VD[given.items], given_V[given.items] = given.vectors_WD, True
    as_if_new = with_vectors(model, vectors_VD, np.flatnonzero(unknown_V))
    return _AsIfNew(model=as_if_new, held_V=held_V, unknown_V=unknown_V, given_V=given_V)


def _ranks(
    config: EvaluateConfig,
    model: SequenceModel,
    test: EvaluationSet,
    unknown_V: Flags,
    given_V: Flags | None = None,
) -> Ints:
    """Rank each target, [N]; unknown items are in no answer and in no history."""
    vectors_VD = model.item_vectors().cpu().numpy()
    facts = replace(ItemFacts.nothing(model.num_items), available_V=~unknown_V)
    rules = Rules(RulesConfig(new_items=config.rules.new_items), facts, vectors_VD, new_V=given_V)
    known = replace(test, histories=_without(test.histories, unknown_V))
    users_ND = model.encode(known.histories, intents=False).vectors.cpu().numpy()
    add = model.adder(known.histories)
    lists = answer_lists(rules, users_ND, known, vectors_VD, add, now=datetime.now(UTC), seed=config.seed)
    return ranks_in(lists, known, model.num_items)


def _without(histories: Ragged, unknown_V: Flags) -> Ragged:
    kept = ~unknown_V[histories.values]
    before = np.concatenate(([0], np.cumsum(kept, dtype=np.int64)))
    return Ragged(values=histories.values[kept], offsets=before[histories.offsets])


def _resample(config: EvaluateConfig, ranks: dict[str, npt.NDArray[np.integer]], chosen_N: Flags) -> Bootstrap:
    inside = {world: rank[chosen_N] for world, rank in ranks.items()}
    return bootstrap(inside, samples=config.bootstrap, confidence=config.confidence, seed=config.seed)


def _row(group: str, users: int, world: str, drawn: Bootstrap) -> dict[str, Any]:
    row: dict[str, Any] = {"targets": group, "users": users, "items": world}
    for metric in HEADLINE:
        found = drawn.estimate(world, metric)
        row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
    return row
