"""Which users are asked where not all of them are."""

import numpy as np
import pyarrow as pa

from elcrec.data.dataset import EvaluationSet
from elcrec.data.id_hashes import hash_ids


def sample_users(asked: EvaluationSet, count: int, user_ids: pa.ChunkedArray) -> EvaluationSet:
    """Return the `count` users whose ids have the smallest hashes: mostly the same in every version of a log.

    Args:
        asked: the users to choose from.
        count: how many; no fewer than there are means all of them.
        user_ids: raw ids of all users of the sequences (`load_user_ids`).
    """
    if count >= len(asked.users):
        return asked
    hashes = hash_ids(user_ids.take(pa.array(asked.users)))
    smallest = np.argsort(hashes, kind="stable")[:count]
    return asked.take(np.sort(smallest))
