"""Predictions of a trained model for the test users: ranks, recommendations, intents.

Axes: `N` test users, `V` items, `D` hidden size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from elcrec.artifacts import read_json
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.metrics import CUTOFFS
from elcrec.evaluation.provenance import model_label
from elcrec.evaluation.ranking import Ranking, rank_targets
from elcrec.model.io import load_model
from elcrec.model.sequence_model import SequenceModel

TOP_K = max(CUTOFFS)
_MOST_PICTURED = 1500
_USERS_AT_ONCE = 65_536
"""Number of users whose vectors are held in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A model's predictions, N users.

    Attributes:
        label: the model's name for readers.
        config: the content of its config.json.
        ranking: ranks and the 20 best items, without the history.
        unmasked_ranks: ranks with the history left in, `None` if no target is a repeat that counts as missed, [N].
        intents: nearest intent, -1 if there is none, [N].
        pictured: a sample of the users with an intent, for charts, as rows of N.
        pictured_states: what decides their intents (`SequenceModel.pooled`) on the unit sphere, [sample, D].
        earlier_intents: their intents without the last item of the history, -1 if nothing is left, [sample].
        num_intents: number of intents (K), 0 for a model without intents.
    """

    label: str
    config: dict[str, Any]
    ranking: Ranking
    unmasked_ranks: npt.NDArray[np.int32] | None
    intents: npt.NDArray[np.int32]
    pictured: npt.NDArray[np.int64]
    pictured_states: npt.NDArray[np.float32]
    earlier_intents: npt.NDArray[np.int32]
    num_intents: int


def predict(
    folder: Path, data: SequenceData, test: EvaluationSet, *, block_users: int | None, seed: int
) -> Predictions:
    """Load a model, on the GPU if there is one, and rank the test targets.

    Args:
        folder: the model folder.
        data: the sequences on which the model must have been trained.
        test: the evaluation set of the test split, N users.
        block_users: users ranked at a time; `None` chooses for the device.
        seed: seeds the sample of users for charts.

    Raises:
        UserError: the model is unusable, diverged, or was trained on other sequences.
    """
    config = _checked_config(folder, data)
    model = load_model(folder, "cuda" if torch.cuda.is_available() else "cpu")
    items_VD = model.item_vectors()
    missed = not test.repeats and bool(repeat_targets(test).any())
    starts = range(0, len(test.users), _USERS_AT_ONCE)
    parts = [
        _predict(model, items_VD, test.slice(start, start + _USERS_AT_ONCE), block_users, missed=missed)
        for start in starts
    ]
    if not (items_VD.isfinite().all() and all(part.finite for part in parts)):
        fix = "training diverged: train with a lower train.learning_rate"
        raise UserError("the model's vectors are not finite", where=folder, fix=fix)
    intents = np.concatenate([part.intents for part in parts])
    pictured = _sample(np.flatnonzero(intents >= 0), seed)
    seen = test.histories.take(pictured)
    return Predictions(
        label=model_label(config),
        config=config,
        ranking=Ranking(
            ranks=np.concatenate([part.ranking.ranks for part in parts]),
            top_items=np.concatenate([part.ranking.top_items for part in parts]),
        ),
        unmasked_ranks=np.concatenate([part.unmasked_ranks for part in parts]) if missed else None,
        intents=intents,
        pictured=pictured,
        pictured_states=_states(model, seen),
        earlier_intents=_earlier_intents(model, seen),
        num_intents=model.num_intents,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The predictions for a range of users, and whether their vectors are finite."""

    ranking: Ranking
    unmasked_ranks: npt.NDArray[np.int32]
    intents: npt.NDArray[np.int32]
    finite: bool


def _predict(
    model: SequenceModel, items_VD: Tensor, test: EvaluationSet, block_users: int | None, *, missed: bool
) -> _Part:
    encoded = model.encode(test.histories)

    def rank(excluded: Ragged, top_k: int) -> Ranking:
        question = encoded.vectors, items_VD, excluded, test.target_items
        return rank_targets(*question, add=model.adder(test.histories), top_k=top_k, block_users=block_users)

    return _Part(
        ranking=rank(test.excluded, TOP_K),
        unmasked_ranks=rank(Ragged.empty(len(test.users)), 0).ranks if missed else np.empty(0, np.int32),
        intents=encoded.intents.cpu().numpy().astype(np.int32),
        finite=bool(encoded.vectors.isfinite().all()),
    )


def _sample(users: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(users)[:_MOST_PICTURED])


def _states(model: SequenceModel, histories: Ragged) -> npt.NDArray[np.float32]:
    if not len(histories):
        return np.empty((0, 0), np.float32)
    states: npt.NDArray[np.float32] = normalize(model.pooled(histories), dim=1).cpu().numpy()
    return states


def _earlier_intents(model: SequenceModel, histories: Ragged) -> npt.NDArray[np.int32]:
    if not len(histories):
        return np.empty(0, np.int32)
    earlier = histories.head(histories.lengths - 1)
    return model.encode(earlier).intents.cpu().numpy().astype(np.int32)


def repeat_targets(test: EvaluationSet) -> npt.NDArray[np.bool_]:
    """Return for each user whether the target is already in the history, [N]."""
    starts = range(0, len(test.users), _USERS_AT_ONCE)
    return np.concatenate([_repeats(test.slice(start, start + _USERS_AT_ONCE)) for start in starts])


def _repeats(test: EvaluationSet) -> npt.NDArray[np.bool_]:
    users = test.histories.owners
    found = users[test.histories.values == test.target_items[users]]
    return np.bincount(found, minlength=len(test.users)) > 0


def _checked_config(folder: Path, data: SequenceData) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if config.get("sequences_md5") != data.md5:
        trained, found = config.get("sequences_md5"), data.md5
        what = f"the model was trained on other sequences (md5 {trained}) than these (md5 {found})"
        raise UserError(what, where=folder, fix="train it on these sequences, or import it for them")
    return config
