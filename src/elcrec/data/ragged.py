"""Variable-length rows in one flat array: no padding, no Python object per row."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

_ROWS_AT_ONCE = 65_536

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Rows of integers: row `b` is `values[offsets[b]:offsets[b + 1]]`.

    Attributes:
        values: all rows, one after another, [N].
        offsets: start of each row, and the end of the last, [B + 1], int64.
    """

    values: IntArray
    offsets: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Return `rows` empty rows."""
        return cls(values=np.empty(0, np.int32), offsets=np.zeros(rows + 1, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row, [B]."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Row of each value, [N]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def row(self, index: int) -> IntArray:
        """Return one row as a view."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def spans(self, starts: IntArray, ends: IntArray) -> Self:
        """Return the rows `values[starts[b]:ends[b]]` (absolute positions) as a new ragged array."""
        starts, lengths = np.asarray(starts, np.int64), np.asarray(ends - starts, np.int64)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        shifts, values = starts - offsets[:-1], np.empty(offsets[-1], self.values.dtype)
        # The positions take 8 bytes each, so they are computed for a block of rows at a time.
        for first in range(0, len(lengths), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            span = slice(offsets[first], offsets[min(first + _ROWS_AT_ONCE, len(lengths))])
            source = np.arange(span.start, span.stop) + np.repeat(shifts[rows], lengths[rows])
            np.take(self.values, source, out=values[span], mode="clip")
        return type(self)(values=values, offsets=offsets)

    def part(self, rows: slice) -> Self:
        """Return a range of rows as a view of the values."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        return type(self)(values=self.values[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])

    def take(self, rows: IntArray) -> Self:
        """Return the given rows in the given order."""
        return self.spans(self.offsets[:-1][rows], self.offsets[1:][rows])

    def followed_by(self, other: Self) -> Self:
        """Return each row followed by the same row of another array."""
        order = np.argsort(np.concatenate((self.owners, other.owners)), kind="stable")
        return type(self).of(np.concatenate((self.values, other.values))[order], self.lengths + other.lengths)

    def without_repeats(self) -> Self:
        """Return rows without consecutive repetitions of a value."""
        same = np.zeros(len(self.values), np.bool_)
        same[1:] = (self.values[1:] == self.values[:-1]) & (self.owners[1:] == self.owners[:-1])
        before = np.concatenate(([0], np.cumsum(~same)))
        return type(self)(values=self.values[~same], offsets=before[self.offsets])

    def head(self, lengths: IntArray) -> Self:
        """Return the first `lengths[b]` values of each row."""
        return self.spans(self.offsets[:-1], self.offsets[:-1] + lengths)

    def tail(self, length: int) -> Self:
        """Return the last values of each row, at most `length`."""
        ends = self.offsets[1:]
        return self.spans(np.maximum(self.offsets[:-1], ends - length), ends)

    def filled(self, length: int) -> Self:
        """Return rows of one length, at least that of the longest row, padded with zeros on the left."""
        ends = np.arange(1, len(self) + 1) * length
        values = np.zeros(len(self) * length, self.values.dtype)
        values[np.repeat(ends - self.offsets[1:], self.lengths) + np.arange(len(self.values))] = self.values
        return type(self)(values=values, offsets=np.concatenate(([0], ends)))

    @classmethod
    def of(cls, values: IntArray, lengths: "IntArray | list[int]") -> Self:
        """Cut `values` into rows of these lengths."""
        return cls(values=values, offsets=np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))

    @classmethod
    def from_rows(cls, rows: "list[list[int]]", dtype: npt.DTypeLike = np.int32) -> Self:
        """Build from Python lists; for small inputs such as a request."""
        return cls.of(np.asarray([value for row in rows for value in row], dtype), [len(row) for row in rows])
