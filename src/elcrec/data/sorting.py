"""Writing accepted rows to one file and faulty rows to another, in one pass over the log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.data.interactions import interaction_schema
from elcrec.data.log import StagedLog
from elcrec.data.row_groups import row_groups
from elcrec.data.rows import FORGOTTEN
from elcrec.data.times import TIMESTAMP
from elcrec.progress import track

EXAMPLES = 5
"""Number of example rows kept for each reason of quarantine."""

QUARANTINE = pa.schema(
    [
        ("row", pa.int64()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.string()),
        ("reason", pa.string()),
    ]
)

_ROWS_AT_ONCE = 1 << 17
_LONGEST_TEXT = 60

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A reason of quarantine, its number of rows, and some examples."""

    reason: str
    count: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """The outcome for the rows of a log.

    Attributes:
        accepted: number of rows in the file of interactions.
        quarantined: number of rows in quarantine.
        faults: the reasons, most frequent first.
        by_time: whether the interactions are in order of time.
    """

    accepted: int
    quarantined: int
    faults: list[Fault]
    by_time: bool


def sort_rows(
    log: StagedLog, set_aside: Iterator[pa.RecordBatch], reasons: Sequence[str], interactions: Path, quarantine: Path
) -> Sorted:
    """Write both files, each in the order of the log. Rows of forgotten users are in neither.

    Args:
        log: all rows.
        set_aside: `row` and `reason` (a position in `reasons`, or FORGOTTEN) of rows that are not accepted, by row.
        reasons: names of the rules.
        interactions: the file of accepted rows.
        quarantine: the file of faulty rows.
    """
    wanted, faults, order = _Marks(set_aside), _Faults(reasons), _Order()
    schema = interaction_schema(log.columns)
    with (
        pq.ParquetFile(log.file, pre_buffer=False) as file,
        row_groups(interactions, schema) as good,
        row_groups(quarantine, QUARANTINE) as bad,
    ):
        batches = file.iter_batches(_ROWS_AT_ONCE)
        start = 0
        for batch in track(batches, total=-(-log.rows // _ROWS_AT_ONCE), label="rows sorted", step=_ROWS_AT_ONCE):
            places, why = wanted.up_to(start + len(batch))
            kept = np.ones(len(batch), bool)
            kept[places - start] = False
            table = pa.Table.from_batches([batch])
            accepted = table.filter(pa.array(kept)) if len(places) else table
            order.follow(accepted["micros"])
            good.add(_interactions(accepted, schema))
            places, why = places[why != FORGOTTEN], why[why != FORGOTTEN]
            if len(places):
                faulty = table.take(pa.array(places - start))
                bad.add(faults.note(_quarantine(faulty, places, faults.names(why))))
            start += len(batch)
    pa.default_memory_pool().release_unused()
    return Sorted(accepted=good.rows, quarantined=bad.rows, faults=faults.found(), by_time=order.holds)


def _interactions(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = dict(zip(table.column_names, table.columns, strict=True)) | {"timestamp": table["micros"].cast(TIMESTAMP)}
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _quarantine(table: pa.Table, rows: Ints, reasons: pa.Array) -> pa.Table:
    raw_time = table["raw_time"].cast(pa.string())
    columns = [pa.array(rows), table["user_id"], table["item_id"], raw_time, reasons]
    return pa.Table.from_arrays(columns, schema=QUARANTINE)


class _Marks:
    """The rows to set aside, read from their stream in step with the log."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rows, self._reasons = np.empty(0, np.int64), np.empty(0, np.int64)
        self._more = True

    def up_to(self, end: int) -> tuple[Ints, Ints]:
        """Return the next rows before `end`, and their reasons."""
        while self._more and (not len(self._rows) or self._rows[-1] < end):
            batch = next(self._batches, None)
            self._more = batch is not None
            if batch is not None:
                self._rows = np.concatenate((self._rows, np.asarray(batch.column("row"))))
                self._reasons = np.concatenate((self._reasons, np.asarray(batch.column("reason"))))
        size = int(np.searchsorted(self._rows, end))
        taken = self._rows[:size], self._reasons[:size]
        self._rows, self._reasons = self._rows[size:], self._reasons[size:]
        return taken


class _Faults:
    """Counts faulty rows by reason and keeps the first ones of each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self._reasons = pa.array(reasons, pa.string())
        self._counts = dict.fromkeys(reasons, 0)
        self._examples: dict[str, list[dict[str, Any]]] = {reason: [] for reason in reasons}

    def names(self, places: Ints) -> pa.Array:
        return self._reasons.take(pa.array(places))

    def note(self, quarantine: pa.Table) -> pa.Table:
        reasons = np.asarray(quarantine["reason"].to_numpy(zero_copy_only=False))
        for reason in dict.fromkeys(reasons):
            (rows,) = np.nonzero(reasons == reason)
            self._counts[reason] += len(rows)
            examples = self._examples[reason]
            first = quarantine.take(pa.array(rows[: EXAMPLES - len(examples)])).to_pylist()
            examples += [_shorten(row) for row in first]
        return quarantine

    def found(self) -> list[Fault]:
        names = sorted((name for name, count in self._counts.items() if count), key=lambda n: (-self._counts[n], n))
        return [Fault(reason=name, count=self._counts[name], examples=self._examples[name]) for name in names]


class _Order:
    """Checks whether times ascend."""

    def __init__(self) -> None:
        self.holds = True
        self._last: int | None = None

    def follow(self, micros: pa.ChunkedArray) -> None:
        if not self.holds or not len(micros):
            return
        times = np.asarray(micros)
        begun = self._last is None or times[0] >= self._last
        self.holds = bool(begun and (np.diff(times) >= 0).all())
        self._last = times[-1]


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    """Shorten values for display, because a faulty id may have a million characters."""
    return {name: shorten(value) if isinstance(value, str) else value for name, value in row.items()}


def shorten(text: str) -> str:
    """Return a long text cut, with its original length."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
