"""The sequences folder in memory: flat item indices with offsets, and the targets of each split."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.artifacts import read_json
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError

Rows = TypeVar("Rows", slice, npt.NDArray[np.int64])
Split = Literal["valid", "test"]

_ROWS_AT_ONCE = 65_536
_MAPPED_FROM = 16_000_000
"""Number of interactions (64 MB) from which a log is mapped from disk."""

PADDING = 0
"""The item index that stands for no item."""


@dataclass(frozen=True, kw_only=True)
class SequenceData:
    """Users' item sequences in time order, with their split.

    Attributes:
        sequences: item indices from 1, U rows.
        train_end: the first `train_end` items of a row are for training, [U].
        targets: position of a split's target in its row, -1 if a user has none, [U] each.
        num_items: size of the catalogue (V); indices run from 1 to V.
        md5: checksum of the source file.
        repeats: whether items that a user has already met may be recommended.
        weights: weight of each item of the sequences as a target of L_next; `None` if all weights are 1.
        disliked: items that users dislike; `None` if the log has no dislikes.
    """

    sequences: Ragged
    train_end: npt.NDArray[np.int32]
    targets: dict[Split, npt.NDArray[np.int32]]
    num_items: int
    md5: str
    repeats: bool = False
    weights: npt.NDArray[np.float32] | None = None
    disliked: "Disliked | None" = None

    @property
    def num_users(self) -> int:
        """Number of users (U)."""
        return len(self.sequences)

    def training(self) -> Ragged:
        """Return every user's training items, U rows."""
        return self.sequences.head(self.train_end)

    def before_test(self) -> Ragged:
        """Return every user's items before the test split, U rows."""
        valid, test = self.targets["valid"], self.targets["test"]
        return self.sequences.head(np.where(test >= 0, test, np.maximum(self.train_end, valid + 1)))

    def asked(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the users with a target in `split`, in the order of the sequences, [N]."""
        return np.flatnonzero(self.targets[split] >= 0)

    def evaluation(self, split: Split, users: npt.NDArray[np.int64] | None = None) -> "EvaluationSet":
        """Return histories and targets of the users with a target in `split`, or of those in the given rows."""
        users = self.asked(split) if users is None else users
        starts = self.sequences.offsets[users]
        ends = starts + self.targets[split][users]
        histories = self.sequences.spans(starts, ends)
        target_items = self.sequences.values[ends]
        return EvaluationSet(
            users=users,
            histories=histories,
            target_items=target_items.astype(np.int64),
            repeats=self.repeats,
            disliked=None if self.disliked is None else self.disliked.before(split).take(users),
        )


@dataclass(frozen=True, kw_only=True)
class Disliked:
    """Items that users dislike.

    Attributes:
        items: item indices in order of time, U rows.
        counts: number of items disliked before a split's target, [U] each.
    """

    items: Ragged
    counts: dict[Split, npt.NDArray[np.int32]]

    def before(self, split: Split) -> Ragged:
        """Return the items that each user disliked before the target of a split, U rows."""
        return self.items.head(self.counts[split])


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """An evaluation set: histories and the next item after each.

    Attributes:
        users: row of each user in the sequences, [N].
        histories: every item before the target, N rows.
        target_items: the item to find, [N].
        repeats: whether the target may be an item of the history.
        disliked: items that each user disliked before, N rows; `None` if the log has no dislikes.
    """

    users: npt.NDArray[np.int64]
    histories: Ragged
    target_items: npt.NDArray[np.int64]
    repeats: bool = False
    disliked: Ragged | None = None

    @property
    def excluded(self) -> Ragged:
        """Items that must not be recommended, N rows."""
        met = Ragged.empty(len(self.users)) if self.repeats else self.histories
        return met if self.disliked is None else met.followed_by(self.disliked)

    def slice(self, start: int, stop: int) -> "EvaluationSet":
        """Return a range of users."""
        return self._of(slice(start, min(stop, len(self.users))), Ragged.part)

    def part(self, index: int, count: int) -> "EvaluationSet":
        """Return every `count`-th user from `index` on."""
        if count == 1:
            return self
        return self.take(np.arange(index, len(self.users), count))

    def take(self, rows: npt.NDArray[np.int64]) -> "EvaluationSet":
        """Return the users at the given positions."""
        return self._of(rows, Ragged.take)

    def _of(self, rows: Rows, pick: Callable[[Ragged, Rows], Ragged]) -> "EvaluationSet":
        return replace(
            self,
            users=self.users[rows],
            histories=pick(self.histories, rows),
            target_items=self.target_items[rows],
            disliked=None if self.disliked is None else pick(self.disliked, rows),
        )


def load_sequences(folder: Path) -> SequenceData:
    """Read `sequences.parquet` and `split.json`; map the items of a large log from disk.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    split: dict[str, Any] = read_json(folder / "split.json")
    path = folder / "sequences.parquet"
    try:
        with pq.ParquetFile(path) as file:
            sequences = _read_items(file)
            columns = file.read(columns=["train_end", "valid_index", "test_index"])
            found = set(file.schema_arrow.names)
            weights = _read_weights(file) if "weights" in found else None
            disliked = _read_disliked(file) if "disliked" in found else None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path) from error
    return SequenceData(
        sequences=sequences,
        train_end=columns["train_end"].to_numpy(),
        targets={"valid": columns["valid_index"].to_numpy(), "test": columns["test_index"].to_numpy()},
        num_items=split["num_items"],
        md5=split["md5"],
        repeats=split.get("repeats") == "allow",
        weights=weights,
        disliked=disliked,
    )


def _read_items(file: pq.ParquetFile) -> Ragged:
    """Read the column `items`, a batch of rows at a time."""
    lengths, filled, values = [], 0, np.empty(0, np.int32)
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=["items"]):
        items = batch.column(0)
        part = items.flatten().to_numpy()
        if not filled:
            values = _array(_num_items(file))
        values[filled : filled + len(part)] = part
        filled += len(part)
        lengths.append(np.diff(items.offsets.to_numpy()))
    return Ragged.of(values[:filled], np.concatenate(lengths))


def _read_weights(file: pq.ParquetFile) -> npt.NDArray[np.float32]:
    return np.asarray(pc.list_flatten(file.read(columns=["weights"])["weights"]), np.float32)


def _read_disliked(file: pq.ParquetFile) -> Disliked:
    table = file.read(columns=["disliked", "valid_disliked", "test_disliked"])
    counts: dict[Split, npt.NDArray[np.int32]] = {
        "valid": table["valid_disliked"].to_numpy(),
        "test": table["test_disliked"].to_numpy(),
    }
    return Disliked(items=ragged_of(table["disliked"]), counts=counts)


def ragged_of(lists: pa.ChunkedArray) -> Ragged:
    """Return a column of lists of integers as rows."""
    return Ragged.of(pc.list_flatten(lists).to_numpy(), pc.list_value_length(lists).to_numpy())


def _num_items(file: pq.ParquetFile) -> int:
    """Return the number of values in the column `items`, from the file's footer."""
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    return sum(column.num_values for column in columns if column.path_in_schema.split(".")[0] == "items")


def _array(size: int) -> npt.NDArray[np.int32]:
    """Return an array for item indices: in memory, or for a large log in an unnamed file that the system pages."""
    if size < _MAPPED_FROM:
        return np.empty(size, np.int32)
    with tempfile.TemporaryFile() as file:
        return np.asarray(np.memmap(file, np.int32, "w+", shape=(size,)))


def require_served_window(window: int, folder: Path, *, where: object) -> None:
    """Refuse a model that reads more items of a user than the feature store serves.

    Args:
        window: the most recent items that the model reads.
        folder: output of the sequences stage. An old output, whose `split.json` does not have the limit, is accepted.
        where: name for the error of what has the window.

    Raises:
        UserError: `histories.parquet`, which the feature store serves, keeps fewer.
    """
    kept = read_json(folder / "split.json").get("history", window)
    if window > kept:
        what = (
            f"a window of {window} items, but {folder / 'histories.parquet'} keeps {kept}: "
            "the model would be served shorter histories than it is evaluated on"
        )
        fix = f"run the sequences stage with sequences.history={window}; its sequences stay the same"
        raise UserError(what, where=where, fix=fix)


def load_user_ids(folder: Path) -> pa.ChunkedArray:
    """Read the raw ids of the users, in the order of the sequences.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    return _read_columns(folder / "sequences.parquet", "user_id")["user_id"]


def user_id_parts(folder: Path) -> Iterator[pa.Array]:
    """Yield the raw ids of the users as text, in parts, in the order of the sequences.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    path = folder / "sequences.parquet"
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=["user_id"]):
                yield batch.column(0).cast(pa.string())
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path) from error


def user_id_parts_of(folder: Path, users: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Yield the given rows of users (ascending) and their raw ids as text, in parts.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    first = 0
    for ids in user_id_parts(folder):
        start, stop = np.searchsorted(users, (first, first + len(ids)))
        mine = users[start:stop]
        yield mine, ids.take(pa.array(mine - first))
        first += len(ids)


def user_ids_of(folder: Path, users: npt.NDArray[np.int64]) -> pa.ChunkedArray:
    """Return the raw ids of the users in the given rows (ascending) as text.

    Raises:
        UserError: the folder is not the output of the sequences stage.
    """
    return pa.chunked_array([ids for _, ids in user_id_parts_of(folder, users)], pa.string())


def load_item_ids(folder: Path, num_items: int) -> list[str]:
    """Return the raw ids of items 1 to V from `items.parquet`.

    Raises:
        UserError: the file is missing, damaged, or belongs to other sequences.
    """
    path = folder / "items.parquet"
    table = _read_columns(path, "item_index", "item_id")
    ids: list[str] = table.sort_by("item_index")["item_id"].to_pylist()
    if len(ids) != num_items:
        what = f"{len(ids)} items, but split.json says {num_items}"
        raise UserError(what, where=path, fix="run the sequences stage again")
    return ids


def _read_columns(path: Path, *names: str) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path) from error
