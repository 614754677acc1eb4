"""The intents of single items.

Axes: `V` items.
"""

import numpy as np
import numpy.typing as npt

from elcrec.data.ragged import Ragged
from elcrec.model.sequence_model import SequenceModel


def item_intents(model: SequenceModel) -> npt.NDArray[np.int64] | None:
    """Return the intent of each item (of a history with this item alone), [V + 1]; -1 for padding.

    `None` for a model without intents.
    """
    if model.intents is None:
        return None
    alone = Ragged.of(np.arange(1, model.num_items + 1, dtype=np.int32), np.ones(model.num_items, np.int64))
    intents = model.encode(alone).intents.cpu().numpy().astype(np.int64)
    return np.concatenate((np.array([-1]), intents))
