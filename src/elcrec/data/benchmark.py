"""The benchmark text layout: a line a user, `user item item …`, where the order is the time."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.data.log import RawLog
from elcrec.data.times import TIMESTAMP
from elcrec.errors import UserError

_SECOND = 1_000_000


def read_benchmark(path: Path) -> RawLog:
    """Read the file; item `p` (from 0) of a line happened `p + 1` seconds after 1970 began.

    A line without items is one row without an item.

    Raises:
        UserError: the file is not text, has no lines, or a user has two lines (their order is unknown).
    """
    words = pc.ascii_split_whitespace(_lines(path))
    flat, starts = words.values, words.offsets.to_numpy()[:-1].astype(np.int64)
    items = words.value_lengths().to_numpy().astype(np.int64) - 1
    users = flat.take(starts)
    _refuse_repeated_users(path, users)
    rows = np.maximum(items, 1)
    position = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    source = np.where(np.repeat(items == 0, rows), -1, np.repeat(starts + 1, rows) + position)
    item = flat.take(pa.array(source, mask=source < 0))
    return _log(users.take(np.repeat(np.arange(len(users)), rows)), item, position)


def _lines(path: Path) -> pa.Array:
    text = path.read_text(encoding="utf-8-sig")
    if "\0" in text:
        raise UserError("not a text file", where=path)
    # Only a line feed ends a line: str.splitlines would also cut ids at Unicode separators.
    lines = pc.ascii_trim_whitespace(pa.array(text.split("\n"), pa.string()))
    lines = lines.filter(pc.not_equal(lines, ""))
    if not len(lines):
        raise UserError("the log has no rows", where=path, fix="check the export that wrote it")
    return lines


def _refuse_repeated_users(path: Path, users: pa.Array) -> None:
    counts = pc.value_counts(users)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        name = repeated.field("values")[0].as_py()
        raise UserError(
            f"user {name[:80]!r} has more than one line",
            where=path,
            fix="one line holds a user's whole history",
        )


def _log(users: pa.Array, items: pa.Array, position: npt.NDArray[np.int64]) -> RawLog:
    seconds = position + 1
    table = pa.table(
        {
            "row": np.arange(len(position)),
            "user_id": users,
            "item_id": items,
            "timestamp": pa.array(seconds * _SECOND).cast(TIMESTAMP),
            "raw_time": seconds,
        }
    )
    return RawLog(table=table, time="order", types={"line": "user item item …"})
