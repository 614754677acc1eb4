"""Suspect ids: users or items with an implausible share of a log, and ids that look alike."""

from typing import NamedTuple

from elcrec.data.engine import Session

_TIMES_THE_MEAN = 5
"""In a log of few users or items, a large share is normal."""


class Suspect(NamedTuple):
    """A suspect user or item (`column` is `user_id` or `item_id`), its id and its number of events."""

    column: str
    id: str
    events: int

    def __str__(self) -> str:
        """Return its kind, id and number of events."""
        return f"{self.column.removesuffix('_id')} {self.id[:80]!r} ({self.events:,} events)"


class Alike(NamedTuple):
    """The number of ids that differ from another only by case or leading zeros, and an example pair."""

    ids: int = 0
    example: tuple[str, str] | None = None


class Shares(NamedTuple):
    """The largest plausible shares of the events for one user, and for one item."""

    user: float
    item: float


def most_events(events: int, ids: int, share: float) -> float:
    """Return the largest plausible number of events for one of `count` users or items."""
    return max(share * events, _TIMES_THE_MEAN * events / max(1, ids))


def leave_out_heavy(session: Session, shares: Shares) -> tuple[list[Suspect], int]:
    """Remove users and items with an implausible share from the view `log`; return them and their number of rows.

    Their rows are added to the table `forgotten_rows`, which is not written to any file.
    """
    found = [*_heavy(session, "user_id", shares.user), *_heavy(session, "item_id", shares.item)]
    if not found:
        return [], 0
    theirs = " OR ".join(f"{column} IN (SELECT {column} FROM heavy_{column})" for column in ("user_id", "item_id"))
    before = _count(session, "forgotten_rows")
    session.table("left_out", f"SELECT row FROM forgotten_rows UNION ALL SELECT row FROM log WHERE {theirs}")
    session.rename("left_out", "forgotten_rows")
    absent = "NOT EXISTS (SELECT 1 FROM forgotten_rows WHERE forgotten_rows.row = staged.row)"
    session.view("log", f"SELECT * FROM staged WHERE {absent}")
    return found, _count(session, "forgotten_rows") - before


def _heavy(session: Session, column: str, share: float) -> list[Suspect]:
    counted = f"SELECT {column}, count(*) AS events FROM log WHERE {column} IS NOT NULL GROUP BY {column}"
    session.table(f"events_{column}", counted)
    (total,) = session.fetch(
        f"SELECT count(*) AS ids, CAST(coalesce(sum(events), 0) AS BIGINT) AS events FROM events_{column}"
    ).to_pylist()
    most = most_events(total["events"], total["ids"], share)
    session.table(f"heavy_{column}", f"SELECT * FROM events_{column} WHERE events > {most}")
    rows = session.fetch(f"SELECT * FROM heavy_{column} ORDER BY events DESC, {column}").to_pylist()
    session.drop(f"events_{column}")
    return [Suspect(column, row[column], row["events"]) for row in rows]


def largest(session: Session, table: str, column: str) -> Suspect | None:
    """Return the user or item with most events in a table of `events` by id."""
    for row in session.fetch(
        f"SELECT {column}, events FROM {table} ORDER BY events DESC, {column} LIMIT 1"
    ).to_pylist():
        return Suspect(column, row[column], row["events"])
    return None


def find_alike(session: Session, table: str, column: str) -> Alike:
    """Count the ids of a table that differ from another only by case or leading zeros."""
    plain = f"SELECT {column} AS id, lower(regexp_replace({column}, '^0+', '')) AS plain FROM {table}"
    groups = f"SELECT min(id) AS one, max(id) AS other, count(*) AS ids FROM ({plain}) written GROUP BY plain"
    session.table("alike", f"SELECT * FROM ({groups}) grouped WHERE ids > 1")
    found = Alike()
    for row in session.fetch("SELECT one, other FROM alike ORDER BY one LIMIT 1").to_pylist():
        (total,) = session.fetch("SELECT CAST(sum(ids) AS BIGINT) AS ids FROM alike").to_pylist()
        found = Alike(total["ids"], (row["one"], row["other"]))
    session.drop("alike")
    return found


def _count(session: Session, name: str) -> int:
    return int(session.fetch(f"SELECT count(*) AS rows FROM {name}")["rows"][0].as_py())
