"""The physical lines of a text: which fields span lines, and which quote is never closed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from elcrec.data.text import TextLayout
from elcrec.errors import UserError

_BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 16 << 20
_NEWLINE, _RETURN = 10, 13

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Facts about the lines of a file.

    Attributes:
        count: number of lines.
        header: number of header lines: one or none.
        skipped: numbers (from 1) of lines that do not begin a row: blank lines, and continuations of a quoted field.
        longest: the first and the last line of the field that spans most lines, if any does.
        swallowed: number of lines inside fields that have as many separators as the first line.
    """

    count: int
    header: int
    skipped: Ints = field(repr=False)
    longest: tuple[int, int] | None
    swallowed: int

    def of_rows(self, rows: Ints) -> Ints:
        """Return the lines at which rows begin; rows are counted from 0."""
        places = rows + self.header
        whole_before = self.skipped - np.arange(1, len(self.skipped) + 1)
        return places + 1 + np.searchsorted(whole_before, places, side="right")


def scan_lines(path: Path, layout: TextLayout) -> Lines:
    """Scan the lines of a text.

    Raises:
        UserError: a quote is never closed, a line is too long, or the text is not of its encoding.
    """
    scan = _Scan(path, layout)
    for block in blocks(path, layout.open):
        scan.follow(block)
    return scan.result()


def blocks(path: Path, opened: Callable[[Path], BinaryIO]) -> Iterator[bytes]:
    """Yield a text in blocks of whole lines with their line ends.

    Raises:
        UserError: a line is too long.
    """
    begun: list[bytes] = []
    with opened(path) as file:
        while block := bytes(file.read(_BLOCK_BYTES)):
            whole, newline, rest = block.rpartition(b"\n")
            if newline:
                yield b"".join((*begun, whole, newline))
                begun = []
            begun.append(rest)
            if sum(map(len, begun)) > _LONGEST_LINE:
                what = f"a line is longer than {_LONGEST_LINE >> 20} MiB"
                raise UserError(what, where=path, fix="check that it is text in lines")
    if last := b"".join(begun):
        yield last + b"\n"


class _Scan:
    def __init__(self, path: Path, layout: TextLayout) -> None:
        self._path, self._header = path, int(layout.header)
        separator, quote = layout.separator.encode(), layout.quote.encode()
        # With an escape character, quotes cannot be recognised this way; then lines are only counted.
        self._quote = b"" if layout.escape else quote
        self._separator, self._fields = separator[0], len(layout.names)
        edge, mark = re.escape(separator), re.escape(quote or b'"')
        field_begins = rb"%s(?:[^%s]|%s%s)*$" % (mark, mark, mark, mark)
        self._opens = re.compile(rb"(?:^|%s)%s" % (edge, field_begins))
        self._opens_again = re.compile(rb"%s%s" % (edge, field_begins))
        self._closes = re.compile(rb"(?:[^%s]|%s%s)*%s" % (mark, mark, mark, mark))
        self._number, self._opened, self._swallowed = 0, 0, 0
        self._longest: tuple[int, int] | None = None
        self._skipped: list[Ints] = []

    def result(self) -> Lines:
        if self._opened:
            raise UserError(
                f"line {self._opened} opens a quote that is never closed",
                where=self._path,
                fix="close it; if quotes are plain characters, set validate.csv.quote to nothing",
            )
        return Lines(
            count=self._number,
            header=self._header,
            skipped=np.concatenate([np.empty(0, np.int64), *self._skipped]),
            longest=self._longest,
            swallowed=self._swallowed,
        )

    def follow(self, block: bytes) -> None:
        self._require_text(block)
        quoted = bool(self._quote) and self._quote in block
        if not quoted and not self._opened and b"\n\n" not in block and b"\n\r\n" not in block and block[0] > _RETURN:
            self._number += block.count(b"\n")
            return
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE)
        inside = self._inside(block, data, ends) if quoted or self._opened else np.zeros(len(ends), bool)
        begins = np.concatenate(([0], ends[:-1] + 1))
        blank = (ends == begins) | ((ends == begins + 1) & (data[begins] == _RETURN))
        self._skipped.append(np.flatnonzero(inside | blank) + self._number + 1)
        self._number += len(ends)

    def _require_text(self, block: bytes) -> None:
        if block.isascii():
            return
        try:
            block.decode()
        except UnicodeDecodeError as error:
            line = self._number + block.count(b"\n", 0, error.start) + 1
            fix = "set validate.csv.encoding, such as latin-1 or cp1252, or correct the export"
            raise UserError(f"line {line} is not UTF-8", where=self._path, fix=fix) from error

    def _inside(self, block: bytes, data: npt.NDArray[np.uint8], ends: Ints) -> Bools:
        """Return which lines continue a field of the previous line."""
        inside = np.zeros(len(ends), bool)
        quotes = np.searchsorted(ends, np.flatnonzero(data == self._quote[0]))
        like_rows = self._like_rows(data, ends)
        since = 0
        # A line with an even number of quotes ends as it began: inside a field, or outside.
        for line in np.flatnonzero(np.bincount(quotes, minlength=len(ends)) % 2).tolist():
            text = block[ends[line - 1] + 1 if line else 0 : ends[line]].rstrip(b"\r")
            if not self._opened:
                if self._opens.search(text):
                    self._opened, since = self._number + line + 1, line + 1
                continue
            inside[since : line + 1] = True
            self._swallowed += int(like_rows[since:line].sum())
            span = (self._opened, self._number + line + 1)
            self._longest = max((span, self._longest or span), key=lambda each: each[1] - each[0])
            closed = self._closes.match(text)
            again = closed is not None and self._opens_again.search(text, closed.end())
            self._opened, since = (self._number + line + 1, line + 1) if again else (0, 0)
        if self._opened:
            inside[since:] = True
            self._swallowed += int(like_rows[since:].sum())
        return inside

    def _like_rows(self, data: npt.NDArray[np.uint8], ends: Ints) -> Bools:
        """Return which lines have as many fields as the first one."""
        separators = np.searchsorted(ends, np.flatnonzero(data == self._separator))
        return np.asarray(np.bincount(separators, minlength=len(ends)) == self._fields - 1)
