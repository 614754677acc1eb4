"""Measures of intents: their sizes, their typical items, and their agreement with a planted truth.

Axes: `N` users, `V` items, `K` intents, `P` planted intents.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.evaluation.popularity import distinct_pairs

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]

RECENT = 10
"""Number of last items of a history whose planted intents define the user's true present intent."""
_MIN_USERS, _MIN_SHARE = 3, 0.02
_SHUFFLES = 10


def effective_number(sizes: IntArray) -> float:
    """Return the effective number: exp of the entropy, the number of equal intents that would be as varied."""
    return float(np.exp(_entropy(sizes)))


def typical_items(
    intents: IntArray, histories: Ragged, num_intents: int, num_items: int, top: int
) -> list[list[dict[str, Any]]]:
    """Return each intent's most characteristic items: `item` (index), `users` and `lift`, K lists.

    Lift is the share of the intent's users with the item in their history, divided by that share among all users. Only
    items that at least 3 users and 2 % of the intent's users have are listed.

    Args:
        intents: each user's intent, [N].
        histories: each user's items, N rows.
        num_intents: number of intents (K).
        num_items: size of the catalogue (V).
        top: how many items to list.
    """
    users, items = distinct_pairs(histories, num_items + 1)
    overall = np.bincount(items, minlength=num_items + 1)
    sizes = np.bincount(intents, minlength=num_intents)
    pair, inside = np.unique(intents[users].astype(np.int64) * (num_items + 1) + items, return_counts=True)
    intent, item = np.divmod(pair, num_items + 1)
    keep = inside >= np.maximum(_MIN_USERS, np.ceil(_MIN_SHARE * sizes[intent]))
    intent, item, inside = intent[keep], item[keep], inside[keep]
    lift = (inside / sizes[intent]) / (overall[item] / len(intents))
    order = np.lexsort((item, -inside, -lift, intent))
    bounds = np.searchsorted(intent[order], np.arange(num_intents + 1))
    return [
        [{"item": int(item[i]), "users": int(inside[i]), "lift": float(lift[i])} for i in order[low:high][:top]]
        for low, high in pairwise(bounds)
    ]


def nmi(labels: IntArray, truth: IntArray) -> float:
    """Return the normalised mutual information of two labellings of the same elements, [N] each, 0 to 1.

    Normalised by the arithmetic mean of the entropies; two constant labellings agree perfectly.
    """
    _, label = np.unique(labels, return_inverse=True)
    _, true = np.unique(truth, return_inverse=True)
    joint = np.bincount(label * (true.max(initial=0) + 1) + true)
    entropies = _entropy(np.bincount(label)), _entropy(np.bincount(true))
    if entropies == (0.0, 0.0):
        return 1.0
    mutual = sum(entropies) - _entropy(joint)
    return float(np.clip(2 * mutual / sum(entropies), 0, 1))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The planted intents of a synthetic log.

    Attributes:
        items: intent of each item, [V + 1]; entry 0 is padding.
        users: the intent of each user, -1 if they have several, [N].
    """

    items: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]


def load_truth(folder: Path, item_ids: list[str], user_ids: list[str]) -> Truth | None:
    """Read `truth_items.parquet` and `truth_users.parquet`; return `None` if the folder has no truth.

    Args:
        folder: the raw folder.
        item_ids: raw ids of items 1 to V, in the order of their indices.
        user_ids: raw ids of the evaluated users, [N].

    Raises:
        UserError: the truth is unreadable, or belongs to other items or users.
    """
    files = folder / "truth_items.parquet", folder / "truth_users.parquet"
    if not all(file.is_file() for file in files):
        return None
    try:
        items, users = (pq.read_table(file) for file in files)
        intent_of = dict(zip(items["item_id"].to_pylist(), items["intent"].to_pylist(), strict=True))
        held_by = dict(zip(users["user_id"].to_pylist(), users["intents"].to_pylist(), strict=True))
        item_intents = [-1, *(intent_of[item] for item in item_ids)]
        user_intents = [held_by[user] for user in user_ids]
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"the planted truth is not readable ({error})", where=folder) from error
    except KeyError as error:
        fix = "give the raw folder that the sequences were built from"
        raise UserError(f"the planted truth does not know {error}", where=folder, fix=fix) from error
    single = [intents[0] if len(intents) == 1 else -1 for intents in user_intents]
    return Truth(items=np.array(item_intents, np.int64), users=np.array(single, np.int64))


def agreement(intents: IntArray, histories: Ragged, truth: Truth, *, seed: int) -> dict[str, float]:
    """Compare the model's intents with the planted ones.

    Returns:
        `intent_nmi`: NMI with the dominant planted intent of each user's last 10 items (`dominant_labels`), over the
        users with a history; `intent_nmi_chance`: the same after the model's intents are shuffled, which shows how much
        of it the number of intents alone explains (mean of 10 shuffles); `intent_nmi_single`: NMI with the planted
        intent of the users who have only one, if there are any.
    """
    users = np.flatnonzero(histories.lengths)
    mine, dominant = intents[users], dominant_labels(histories.take(users), truth.items)
    generator = np.random.default_rng(seed)
    shuffled = [nmi(generator.permutation(mine), dominant) for _ in range(_SHUFFLES)]
    found = {"intent_nmi": nmi(mine, dominant), "intent_nmi_chance": float(np.mean(shuffled))}
    single = truth.users >= 0
    return found | ({"intent_nmi_single": nmi(intents[single], truth.users[single])} if single.any() else {})


def planted_counts(intents: IntArray, histories: Ragged, truth: Truth, num_intents: int) -> npt.NDArray[np.int64]:
    """Return the users by the planted intent that their last items follow and by the model's intent, [P, K].

    Args:
        intents: the model's intent of each user, [N].
        histories: each user's items, N rows, none empty.
        truth: the planted intents.
        num_intents: number of the model's intents (K).
    """
    counts = np.zeros((int(truth.items.max()) + 1, num_intents), np.int64)
    np.add.at(counts, (dominant_labels(histories, truth.items), intents), 1)
    return counts


def dominant_labels(histories: Ragged, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the most frequent label of each row's last 10 items; in a tie, the one that occurred last, [N].

    Args:
        histories: item indices, N rows, none empty.
        labels: label of each item from 0, [V + 1].
    """
    recent = histories.tail(RECENT)
    num_labels = int(labels.max()) + 1
    rows = recent.owners
    pair, inverse, times = np.unique(rows * num_labels + labels[recent.values], return_inverse=True, return_counts=True)
    last = np.zeros(len(pair), np.int64)
    np.maximum.at(last, inverse, np.arange(len(rows)))
    row, label = np.divmod(pair, num_labels)
    order = np.lexsort((last, times, row))
    best = np.cumsum(np.bincount(row, minlength=len(recent))) - 1
    return np.asarray(label[order][best])


def _entropy(sizes: IntArray) -> float:
    """Return the entropy of counts, in nats."""
    share = sizes[sizes > 0] / sizes.sum()
    return float(-(share * np.log(share)).sum()) + 0.0
