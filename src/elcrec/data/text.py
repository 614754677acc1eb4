"""The layout of a text log: compression, encoding, delimiter and names of columns, detected or configured."""

import codecs
import csv
import io
import lzma
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import pyarrow as pa

from elcrec.config import CsvConfig
from elcrec.errors import UserError

AS_FOUND = CsvConfig()
"""Nothing is configured: everything is detected."""

_START_BYTES = 1 << 20
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ": "xz"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = (",", "\t", ";", "|")
_ONE_CHARACTER = "\x1f"
"""Replaces a delimiter of several characters: ASCII's unit separator, which does not occur in text."""


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """The layout of a file.

    Attributes:
        packing: its compression; `None` if it is not compressed.
        encoding: its encoding, by Python's name.
        names: names of the columns.
        header: whether the first line holds the names.
    """

    packing: str | None
    encoding: str
    delimiter: str
    quote: str
    escape: str
    names: tuple[str, ...]
    header: bool

    @classmethod
    def found(cls, path: Path, given: CsvConfig) -> Self:
        """Detect the layout from the beginning of a file, except for what is configured.

        Raises:
            UserError: the first line is not a header, or the file does not have the configured encoding.
        """
        packing = packing_of(path)
        with open_bytes(path) as file:
            start = bytes(file.read(_START_BYTES))
        encoding = given.encoding or _encoding_of(start)
        if b"\r" in start and b"\n" not in start:
            what = "its lines end with a carriage return only, as on an old Mac"
            raise UserError(what, where=path, fix="convert it: tr '\\r' '\\n'")
        line = _first_line(start, encoding)
        delimiter = given.delimiter or max(_DELIMITERS, key=line.count)
        rows = split_rows([line], delimiter, given.quote)
        try:
            names = given.names or tuple(next(rows, []))
        except csv.Error as error:
            raise UserError(f"the first line is not a CSV header ({error})", where=path) from error
        return cls(
            packing=packing,
            encoding=encoding,
            delimiter=delimiter,
            quote=given.quote,
            escape=given.escape,
            names=names,
            header=not given.names,
        )

    @property
    def separator(self) -> str:
        """The separator of fields in the stream that `open` returns."""
        return self.delimiter if len(self.delimiter) == 1 else _ONE_CHARACTER

    def open(self, path: Path) -> pa.NativeFile:
        """Open a file as UTF-8 text whose delimiter is `separator`."""
        file = open_bytes(path)
        if not _is_utf_8(self.encoding):
            file = pa.transcoding_input_stream(file, self.encoding, "utf8")
        if len(self.delimiter) == 1:
            return file
        return pa.PythonFile(io.BufferedReader(_Replaced(file, self.delimiter.encode(), self.separator.encode())), "r")

    def __str__(self) -> str:
        """Return a description for readers."""
        packed = f"packed with {self.packing}" if self.packing else "not packed"
        source = "in the first line" if self.header else "given"
        quote = f"quote {self.quote!r}" if self.quote else "no quotes"
        return f"{packed}, {self.encoding}, delimiter {self.delimiter!r}, {quote}, names of columns {source}"


class _Replaced(io.RawIOBase):
    """A stream in which a sequence of bytes is replaced by another."""

    def __init__(self, file: pa.NativeFile, old: bytes, new: bytes) -> None:
        self._file, self._old, self._new = file, old, new
        self._rest, self._ready, self._ended = b"", b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            block = bytes(self._file.read(_START_BYTES))
            self._ended = not block
            whole = self._rest + block
            kept = 0 if self._ended else self._begun(whole)
            self._rest = whole[len(whole) - kept :]
            self._ready = whole[: len(whole) - kept].replace(self._old, self._new)
        size = min(len(target), len(self._ready))
        target[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _begun(self, block: bytes) -> int:
        """Return the number of bytes at the end that may begin an occurrence of the replaced bytes."""
        return next((size for size in range(len(self._old) - 1, 0, -1) if block.endswith(self._old[:size])), 0)


def packing_of(path: Path) -> str | None:
    """Return the compression of a file by its first bytes, if any."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _PACKED)))
    return next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)


def open_bytes(path: Path) -> pa.NativeFile:
    """Open a file, decompressed if necessary."""
    packing = packing_of(path)
    if packing == "xz":
        return pa.PythonFile(lzma.open(path), "r")
    return pa.input_stream(str(path), compression=packing)


def split_rows(lines: Iterable[str], delimiter: str, quote: str, escape: str = "") -> Iterator[list[str]]:
    """Yield the fields of each row of text; quotes are plain characters if the layout has none."""
    if len(delimiter) > 1:
        return (line.rstrip("\r\n").split(delimiter) for line in lines)
    return csv.reader(lines, **_dialect(delimiter, quote, escape))


def write_rows(file: TextIO, rows: Iterable[Sequence[str]], layout: TextLayout) -> None:
    """Write rows in a layout."""
    if len(layout.delimiter) > 1:
        file.writelines(f"{layout.delimiter.join(row)}\n" for row in rows)
        return
    dialect = _dialect(layout.delimiter, layout.quote, layout.escape)
    csv.writer(file, lineterminator="\n", **dialect).writerows(rows)


def _dialect(delimiter: str, quote: str, escape: str) -> dict[str, Any]:
    quoting = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    return {"delimiter": delimiter, "escapechar": escape or None, **quoting}


def _encoding_of(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    even, odd = start[::2].count(0), start[1::2].count(0)
    if start and max(even, odd) > len(start) // 8 and min(even, odd) * 8 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _is_utf_8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}


def _first_line(start: bytes, encoding: str) -> str:
    name = "utf-8-sig" if _is_utf_8(encoding) else encoding
    text = codecs.getincrementaldecoder(name)("replace").decode(start)
    return text.lstrip("\ufeff\r\n").split("\n", 1)[0].rstrip("\r")
