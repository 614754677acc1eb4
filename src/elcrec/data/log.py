"""A raw log in memory, the same for every layout."""

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

TimeKind = Literal["real", "order"]


@dataclass(frozen=True, kw_only=True)
class RawLog:
    """A log as it was read.

    Attributes:
        table: `row` int64 (0-based position in the file), `user_id` and `item_id` string, `timestamp`
            timestamp[us, UTC], null where absent or unreadable, `raw_time` as it stood in the file, and where the
            log has ids of its events `event_id` string.
        malformed: rows of a CSV log whose number of fields differs from the header's; not in `table`.
        time: `real`, or `order` where the position in the user's line stands for the time.
        types: the columns' types in the file, by name.
        forgotten: rows that were left out because their user was forgotten; not in `table`.
    """

    table: pa.Table
    time: TimeKind
    malformed: list[int] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    forgotten: int = 0

    @property
    def num_rows(self) -> int:
        """All rows of the file that count, malformed ones included."""
        return len(self.table) + len(self.malformed)
