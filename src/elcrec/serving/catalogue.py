"""Raw item ids and their indices in a model's catalogue."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.data.ragged import Ragged
from elcrec.errors import UserError

UNKNOWN = 0
"""Index of an id that is not in the catalogue: the padding row, which no ranking returns."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Items of a model: row `i` of the arrays is item index `i + 1`.

    Attributes:
        item_ids: raw ids, [V], strings.
        counts: training interactions, [V].
    """

    item_ids: pa.Array
    counts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.index_of

    @cached_property
    def ids(self) -> list[str]:
        """Raw id by index, [V + 1], empty for padding: a plain list, because Arrow is slow for single items."""
        return ["", *self.item_ids.to_pylist()]

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Index by raw id."""
        return {item_id: index for index, item_id in enumerate(self.ids[1:], start=1)}

    def known(self, item_ids: Iterable[str]) -> list[int]:
        """Return the indices of the known ids, in order; meant for few ids, such as those of a request."""
        found = map(self.index_of.get, item_ids)
        return [index for index in found if index is not None]

    def indices(self, item_ids: pa.Array) -> npt.NDArray[np.int32]:
        """Return the index of each raw id, 0 if it is unknown, [N]."""
        rows = pc.index_in(item_ids, value_set=self.item_ids)
        return np.asarray(pc.fill_null(rows, -1), np.int32) + 1

    def histories(self, item_ids: pa.Array, offsets: npt.NDArray[np.int64]) -> "KnownHistories":
        """Turn raw histories into indices, without unknown items.

        Args:
            item_ids: all histories, one after another, [N].
            offsets: the start of each history, and the end of the last, [B + 1].
        """
        indices = self.indices(item_ids)
        known = indices != UNKNOWN
        before = np.concatenate(([0], np.cumsum(known, dtype=np.int64)))
        kept = Ragged(values=indices[known], offsets=before[offsets])
        return KnownHistories(histories=kept, skipped=np.diff(offsets) - kept.lengths)


@dataclass(frozen=True, kw_only=True)
class KnownHistories:
    """Histories as indices of a catalogue.

    Attributes:
        histories: known items, B rows.
        skipped: how many unknown items each row had, [B].
    """

    histories: Ragged
    skipped: npt.NDArray[np.int64]


def load_catalogue(path: Path) -> Catalogue:
    """Read items.parquet.

    Raises:
        UserError: the file is not the item table of the sequences stage.
    """
    try:
        table = pq.read_table(path, columns=["item_index", "item_id", "count"])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the sequences stage again") from error
    table = table.sort_by("item_index").combine_chunks()
    if not np.array_equal(table["item_index"].to_numpy(), np.arange(1, len(table) + 1)):
        raise UserError("item_index must run from 1 without gaps", where=path, fix="run sequences again")
    item_ids = table["item_id"].combine_chunks().cast(pa.string())
    return Catalogue(item_ids=item_ids, counts=table["count"].to_numpy())
