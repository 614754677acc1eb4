"""The sequences folder in memory: flat item indices with offsets, and the targets of each split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import read_json
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError

Split = Literal["valid", "test"]

PADDING = 0
"""The item index that is no item."""


@dataclass(frozen=True, kw_only=True)
class SequenceData:
    """Users' item sequences in time order, with their split.

    Attributes:
        user_ids: raw ids, [U].
        sequences: item indices from 1, U rows.
        train_end: the first `train_end` items of a row are for training, [U].
        targets: position of a split's target in its row, -1 where a user has none, [U] each.
        num_items: size of the catalogue (V); indices run from 1 to V.
        md5: checksum of the file the data came from.
    """

    user_ids: pa.ChunkedArray
    sequences: Ragged
    train_end: npt.NDArray[np.int32]
    targets: dict[Split, npt.NDArray[np.int32]]
    num_items: int
    md5: str

    @property
    def num_users(self) -> int:
        """Number of users (U)."""
        return len(self.sequences)

    def training(self) -> Ragged:
        """Return every user's training items, U rows."""
        return self.sequences.head(self.train_end)

    def evaluation(self, split: Split) -> "EvaluationSet":
        """Return histories and targets of the users that have a target in `split`."""
        position = self.targets[split]
        users = np.flatnonzero(position >= 0)
        rows = self.sequences.take(users)
        histories = rows.head(position[users])
        target_items = rows.values[rows.offsets[:-1] + position[users]]
        return EvaluationSet(users=users, histories=histories, target_items=target_items.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """What a split asks: the next item after each history.

    Attributes:
        users: row of each user in the sequences, [N].
        histories: every item before the target, N rows.
        target_items: the item to find, [N].
    """

    users: npt.NDArray[np.int64]
    histories: Ragged
    target_items: npt.NDArray[np.int64]

    def part(self, index: int, count: int) -> "EvaluationSet":
        """Return every `count`-th user from `index` on."""
        if count == 1:
            return self
        rows = np.arange(index, len(self.users), count)
        histories = self.histories.take(rows)
        return EvaluationSet(users=self.users[rows], histories=histories, target_items=self.target_items[rows])


def load_sequences(folder: Path) -> SequenceData:
    """Read `sequences.parquet` and `split.json`.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    split: dict[str, Any] = read_json(folder / "split.json")
    columns = ["user_id", "items", "train_end", "valid_index", "test_index"]
    try:
        table = pq.read_table(folder / "sequences.parquet", columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"not readable ({error})", where=folder / "sequences.parquet") from error
    items = table["items"].combine_chunks()
    return SequenceData(
        user_ids=table["user_id"],
        sequences=Ragged(values=items.values.to_numpy(), offsets=items.offsets.to_numpy().astype(np.int64)),
        train_end=table["train_end"].to_numpy(),
        targets={"valid": table["valid_index"].to_numpy(), "test": table["test_index"].to_numpy()},
        num_items=split["num_items"],
        md5=split["md5"],
    )


def load_item_ids(folder: Path, data: SequenceData) -> list[str]:
    """Return the raw ids of items 1 to V from `items.parquet`.

    Raises:
        UserError: the file is missing, damaged, or not of these sequences.
    """
    path = folder / "items.parquet"
    try:
        table = pq.read_table(path, columns=["item_index", "item_id"])
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    ids: list[str] = table.sort_by("item_index")["item_id"].to_pylist()
    if len(ids) != data.num_items:
        what = f"{len(ids)} items, but split.json says {data.num_items}"
        raise UserError(what, where=path, fix="run the sequences stage again")
    return ids
