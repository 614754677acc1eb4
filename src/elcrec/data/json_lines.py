"""JSON lines: an object a line, whose keys are the columns. A key that is absent is a null.

Values may be text or numbers, which become text. A line that is anything else is torn.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.errors import UserError

_BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 16 << 20  # as with CSV
_BOM = b"\xef\xbb\xbf"
_TORN = (msgspec.MsgspecError, UnicodeDecodeError)

Value = str | int | float | None


class JsonRows:
    """Reads the values of some keys.

    Attributes:
        found: keys that had a value in a line that was read.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys, self.found = list(dict.fromkeys(keys)), set[str]()
        names = {f"field_{place}": key for place, key in enumerate(self._keys)}
        row = msgspec.defstruct("Row", [(name, Value, None) for name in names], rename=names, gc=False)
        self._decoder = msgspec.json.Decoder(row)

    def read(self, lines: Sequence[bytes]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Return the whole rows as columns of text, named by the keys, and the places of torn lines among all."""
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
    """Return a value as text; a whole number has no point."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def read_lines(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some at a time, without blank ones.

    Raises:
        UserError: a line is too long to be one.
    """
    begun, first = b"", True
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            block, first = block.removeprefix(_BOM) if first else block, False
            whole, newline, rest = (begun + block).rpartition(b"\n")
            begun = rest
            if len(begun) > _LONGEST_LINE:
                fix = "write one object a line"
                raise UserError(f"a line is longer than {_LONGEST_LINE >> 20} MiB", where=path, fix=fix)
            if newline:
                yield _present(whole)
    yield _present(begun)


def _present(text: bytes) -> list[bytes]:
    return [line for line in text.split(b"\n") if line.strip()]
