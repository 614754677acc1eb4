"""The benchmark text layout: one line per user, `user item item …`, where the order is the time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.data.engine import Session
from elcrec.data.ids import normal_ids, spellings_of
from elcrec.data.log import SPELLING, RawLog, part_of
from elcrec.errors import UserError

_SECOND = 1_000_000
_BLOCK_CHARACTERS = 4 << 20


def read_benchmark(path: Path, *, spellings: bool = False) -> RawLog:
    """Read the file; item `p` (from 0) of a line gets the time `p + 1` seconds after the start of 1970.

    A line without items becomes one row without an item.

    Raises:
        UserError: the file is not text; raised only while the parts are read.
    """
    return RawLog(
        parts=_parts(path, spellings=spellings),
        file=path,
        time="order",
        types={"line": "user item item …"},
        a_line_a_user=True,
        found="benchmark, one line per user: user item item …",
    )


def _parts(path: Path, *, spellings: bool) -> Iterator[pa.Table]:
    for text in _blocks(path):
        if "\0" in text:
            raise UserError("not a text file", where=path)
        # Only a line feed ends a line: str.splitlines would also split ids at Unicode separators.
        lines = pc.ascii_trim_whitespace(pa.array(text.split("\n"), pa.string()))
        lines = lines.filter(pc.not_equal(lines, ""))
        if len(lines):
            yield _part(lines, spellings=spellings)


def _blocks(path: Path) -> Iterator[str]:
    """Yield the text in blocks of whole lines."""
    begun = ""
    with path.open(encoding="utf-8-sig") as file:
        while text := file.read(_BLOCK_CHARACTERS):
            whole, newline, rest = text.rpartition("\n")
            if newline:
                yield begun + whole
                begun = rest
            else:
                begun += rest
    yield begun


def _part(lines: pa.Array, *, spellings: bool) -> pa.Table:
    words = pc.ascii_split_whitespace(lines)
    flat, starts = words.values, words.offsets.to_numpy()[:-1].astype(np.int64)
    items = words.value_lengths().to_numpy().astype(np.int64) - 1
    rows = np.maximum(items, 1)
    position = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    source = np.where(np.repeat(items == 0, rows), -1, np.repeat(starts + 1, rows) + position)
    ids = normal_ids(pa.chunked_array([flat]))
    whose, seconds = pa.array(np.repeat(starts, rows)), position + 1
    user, item = ids.take(whose), ids.take(pa.array(source, mask=source < 0))
    part = part_of(user, item, pa.array(seconds * _SECOND), pa.array(seconds))
    return part.append_column(SPELLING, spellings_of(flat, ids).take(whose)) if spellings else part


def refuse_repeated_users(session: Session, path: Path) -> None:
    """Check the view `log` of a file in this layout.

    Raises:
        UserError: a user has two lines, so their order is unknown.
    """
    first = f"SELECT user_id, min(row) AS row FROM log WHERE micros = {_SECOND} GROUP BY user_id HAVING count(*) > 1"
    for row in session.fetch(f"{first} ORDER BY row LIMIT 1").to_pylist():
        name = row["user_id"][:80]
        fix = "one line holds a user's whole history"
        raise UserError(f"user {name!r} has more than one line", where=path, fix=fix)
