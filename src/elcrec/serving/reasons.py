"""Which items of a history contribute to a score: each is left out in turn, and the fall is measured.

Exact for the model as it is, at the cost of encoding as many histories as the window holds items.

Axes: `L` items of a history, `C` recommended items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from elcrec.data.ragged import Ragged
from elcrec.model.sequence_model import SequenceModel

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Reason:
    """The contribution of an item of the history: the score minus the score without that item."""

    item_id: str
    contribution: float


@torch.inference_mode()
def fall_without(
    model: SequenceModel,
    history: list[int],
    items_C: torch.Tensor,
    vectors_CD: torch.Tensor,
    as_trained: Callable[[Ragged], Ragged],
) -> list[list[tuple[int, float]]]:
    """Return, per recommended item, at most three items without which its score falls most, and how far.

    Args:
        model: the model that ranked.
        history: item indices, oldest first, not empty.
        items_C: the recommended items.
        vectors_CD: their vectors.
        as_trained: what makes histories what the model was trained on; without an item, others may come together.
    """
    history = as_trained(Ragged.from_rows([history])).values.tolist()
    met = list(dict.fromkeys(history[-model.config.encoder.window :]))
    rows = [history, *([item for item in history if item != left_out] for left_out in met)]
    histories = as_trained(Ragged.from_rows(rows))
    products_LC = model.encode(histories, intents=False).vectors @ vectors_CD.T
    additions = model.additions(histories)
    if additions is not None:
        products_LC += additions.of(items_C, len(rows))
    scores_LC = products_LC.numpy()
    fall_LC = scores_LC[0] - scores_LC[1:]
    most_LC = np.argsort(-fall_LC, axis=0, kind="stable")[:_NAMED]
    return [
        [(met[row], float(fall_LC[row, column])) for row in most_LC[:, column].tolist() if fall_LC[row, column] > 0]
        for column in range(len(vectors_CD))
    ]
