"""The champion measured on the challenger's test users, catalogue and ranking.

Axes: `N` test users, `V` items of the challenger, `D` hidden size of the champion.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from elcrec.data.dataset import PADDING, EvaluationSet
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.io import load_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.serving.catalogue import UNKNOWN, Catalogue, load_catalogue

_BELOW_ALL = -1e30


def rank_with_champion(bundle: Path, catalogue: Catalogue, test: EvaluationSet) -> npt.NDArray[np.int32] | None:
    """Rank the challenger's test targets with the champion, items matched by raw id, [N].

    Items that the champion does not know rank below all items that it knows. There they tie, and ties count against the
    target. The result is `None` if it knows no item of the catalogue.

    Args:
        bundle: the champion's bundle, verified.
        catalogue: the challenger's items.
        test: the challenger's test split.

    Raises:
        UserError: the bundle does not load, or its parts do not match.
    """
    own = load_catalogue(bundle / "items.parquet")
    model = load_model(bundle)
    if model.num_items != len(own):
        raise UserError(f"{len(own)} items for a model of {model.num_items}", where=bundle)
    as_champion = own.indices(catalogue.item_ids)
    if not as_champion.any():
        return None
    histories = own.histories(catalogue.item_ids.take(pa.array(test.histories.values - 1)), test.histories.offsets)
    vectors_ND = model.encode(histories.histories, intents=False).vectors
    users_ND, items_VD = _sink_unknown(vectors_ND, model.item_vectors(), as_champion)
    add = _adder(model, histories.histories, as_champion)
    return rank_targets(users_ND, items_VD, test.excluded, test.target_items, add=add, top_k=1).ranks


def _adder(
    model: SequenceModel, histories: Ragged, as_champion: npt.NDArray[np.int32]
) -> Callable[[Tensor, slice], None]:
    """Return what adds to the challenger's items what the champion adds to the scores of its own."""
    numbers_V, own_V = _numbers(as_champion, model.num_items), _own(as_champion)
    popularity_V = None if model.popularity_V is None else model.popularity_V[own_V]

    def add(scores_BV: Tensor, rows: slice) -> None:
        additions = model.additions(histories.part(rows))
        if additions is not None:
            additions.to_items(numbers_V).onto(scores_BV)
        if popularity_V is not None:
            scores_BV += popularity_V

    return add


def _numbers(as_champion: npt.NDArray[np.int32], champion_items: int) -> Tensor:
    """Return the challenger's number of each of the champion's items; 0, padding, for an item that it lacks."""
    numbers_V = torch.zeros(champion_items + 1, dtype=torch.int64)
    numbers_V[torch.from_numpy(as_champion.astype(np.int64))] = torch.arange(1, len(as_champion) + 1)
    numbers_V[UNKNOWN] = PADDING
    return numbers_V


def _own(as_champion: npt.NDArray[np.int32]) -> Tensor:
    """Return the champion's number of padding and each of the challenger's items."""
    return torch.from_numpy(np.concatenate(([UNKNOWN], as_champion)).astype(np.int64))


def _sink_unknown(users_ND: Tensor, champion_VD: Tensor, as_champion: npt.NDArray[np.int32]) -> tuple[Tensor, Tensor]:
    """Map the champion's item vectors to the challenger's catalogue; unknown items score below all others.

    If there are unknown items, an extra last column (1 for users, very negative for unknown items) does this.
    """
    rows = _own(as_champion)
    items_VD = champion_VD[rows]
    unknown = rows == UNKNOWN
    if unknown.sum() == 1:
        return users_ND, items_VD
    sink = torch.where(unknown, _BELOW_ALL, 0.0).to(items_VD)
    ones = users_ND.new_ones(len(users_ND), 1)
    # The padding row may hold anything. It stands in for unknown items, so it must not affect the score.
    items_VD = items_VD.masked_fill(unknown.to(items_VD.device)[:, None], 0.0)
    return torch.cat((users_ND, ones), dim=1), torch.cat((items_VD, sink[:, None]), dim=1)
