"""JSON lines: one object per line, whose keys are the columns. A missing key is a null.

Values may be text or numbers, which become text. Any other line is torn.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.data.lines import Lines, blocks
from elcrec.data.text import open_bytes

_SPACE = 32
_MAY_BE_BLANK = re.compile(rb"\n[\x00-\x20]")
_TORN = (msgspec.MsgspecError, UnicodeDecodeError)

Value = str | int | float | None


class JsonRows:
    """Reads the values of the given keys.

    Attributes:
        found: keys that had a value in some line so far.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys, self.found = list(dict.fromkeys(keys)), set[str]()
        names = {f"field_{place}": key for place, key in enumerate(self._keys)}
        row = msgspec.defstruct("Row", [(name, Value, None) for name in names], rename=names, gc=False)
        self._decoder = msgspec.json.Decoder(row)

    def read(self, lines: Sequence[bytes]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Return the whole rows as columns of text, named by the keys, and the positions of torn lines."""
        rows = [self._row(line) for line in lines]
        whole = [row for row in rows if row is not None]
        columns = zip(*whole, strict=True) if whole else ((),) * len(self._keys)
        table = pa.table([pa.array(map(text_of, column), pa.string()) for column in columns], names=self._keys)
        self.found |= {key for key in self._keys if table[key].null_count < len(table)}
        return table, np.flatnonzero([row is None for row in rows])

    def _row(self, line: bytes) -> tuple[Value, ...] | None:
        try:
            return msgspec.structs.astuple(self._decoder.decode(line))
        except _TORN:
            return None


def text_of(value: Value) -> str | None:
    """Return a value as text; a whole number without a decimal point."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def scan_json_lines(path: Path) -> Lines:
    """Scan a file of JSON lines; blank lines are not rows.

    Raises:
        UserError: a line is too long.
    """
    number, skipped = 0, []
    for block in _blocks(path):
        # The first byte of a line is a control character or a blank only if the line is empty or indented.
        if block[0] <= _SPACE or _MAY_BE_BLANK.search(block):
            blank = [not line.strip() for line in block[:-1].split(b"\n")]
            skipped.append(np.flatnonzero(blank) + number + 1)
        number += block.count(b"\n")
    found = np.concatenate([np.empty(0, np.int64), *skipped])
    return Lines(count=number, header=0, skipped=found, longest=None, swallowed=0)


def read_lines(path: Path) -> Iterator[list[bytes]]:
    """Yield blocks of lines of a file, decompressed if necessary, without blank lines.

    Raises:
        UserError: a line is too long.
    """
    for block in _blocks(path):
        yield [line for line in block.split(b"\n") if line.strip()]


def _blocks(path: Path) -> Iterator[bytes]:
    for number, block in enumerate(blocks(path, open_bytes)):
        yield block if number else block.removeprefix(BOM_UTF8)
