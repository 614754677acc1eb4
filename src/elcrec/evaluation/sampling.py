"""The sample of users for an evaluation."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from elcrec.data.dataset import EvaluationSet, SequenceData, Split, user_id_parts_of
from elcrec.data.id_hashes import Hashes, hash_ids


def asked_users(data: SequenceData, split: Split, count: int | None, sequences: Path) -> EvaluationSet:
    """Return the users whose ids have the smallest hashes: mostly the same in every version of a log.

    Args:
        data: the sequences.
        split: the split of the targets.
        count: number of users; `None`, or at least as many as have a target, means all.
        sequences: the folder with their raw ids, which are read in parts.

    Raises:
        UserError: the ids cannot be read.
    """
    asked = data.asked(split)
    if count is None or count >= len(asked):
        return data.evaluation(split, asked)
    return data.evaluation(split, _smallest(asked, count, sequences))


def _smallest(asked: npt.NDArray[np.int64], count: int, sequences: Path) -> npt.NDArray[np.int64]:
    hashes: Hashes = np.empty(0, np.uint64)
    users = np.empty(0, np.int64)
    for mine, ids in user_id_parts_of(sequences, asked):
        hashes = np.concatenate((hashes, hash_ids(ids)))
        users = np.concatenate((users, mine))
        # The sort is stable, so that of equal hashes the earlier user is chosen, independently of the parts.
        kept = np.sort(np.argsort(hashes, kind="stable")[:count])
        hashes, users = hashes[kept], users[kept]
    return users
