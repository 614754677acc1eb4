"""Which items of a history carry a score: each is left out in turn, and what falls rested on it.

Exact for the model as it is, at the cost of encoding as many histories as the window holds items.

Axes: `L` items of a history, `C` recommended items.
"""

from dataclasses import dataclass

import numpy as np
import torch

from elcrec.data.ragged import Ragged
from elcrec.model.sequence_model import SequenceModel

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What an item of the history adds to a score: the score less what it would be had the user never met the item."""

    item_id: str
    contribution: float


@torch.inference_mode()
def fall_without(model: SequenceModel, history: list[int], vectors_CD: torch.Tensor) -> list[list[tuple[int, float]]]:
    """Return for each recommended item the items without which its score falls most, and how far, at most three.

    Args:
        model: what ranked.
        history: item indices, oldest first, not empty.
        vectors_CD: what is scored of the recommended items.
    """
    met = list(dict.fromkeys(history[-model.config.encoder.window :]))
    rows = [history, *([item for item in history if item != left_out] for left_out in met)]
    vectors = model.encode(Ragged.from_rows(rows), intents=False).vectors
    scores_LC = (vectors @ vectors_CD.T).numpy()
    fall_LC = scores_LC[0] - scores_LC[1:]
    most_LC = np.argsort(-fall_LC, axis=0, kind="stable")[:_NAMED]
    return [
        [(met[row], float(fall_LC[row, column])) for row in most_LC[:, column].tolist() if fall_LC[row, column] > 0]
        for column in range(len(vectors_CD))
    ]
