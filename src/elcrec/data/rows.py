"""Row-level rules: what makes a single row of a log faulty."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from elcrec.data.engine import Session

CLOCK_TOLERANCE = timedelta(days=1)
"""A time this far ahead of now is still taken: clocks differ, and zoneless times are read as UTC."""

TORN = "row has the header's number of fields"

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMPLETE = "user_id IS NOT NULL AND item_id IS NOT NULL AND micros IS NOT NULL"
_KEY = "xxhash64(user_id, item_id, micros)"


class Rule(NamedTuple):
    """What must hold for a row.

    Attributes:
        broken: the condition, in SQL, under which a row breaks it.
        expected: what holds, in words.
    """

    name: str
    broken: str
    expected: str


def row_rules(max_id_length: int, now: datetime) -> list[Rule]:
    """Return the rules; a faulty row is put down to the first that it breaks."""
    latest = (now + CLOCK_TOLERANCE - _EPOCH) // _MICROSECOND
    short = f"{max_id_length} characters at most"
    future = "a day ahead of the clock at most"
    return [
        Rule("user_id is present", "NOT torn AND user_id IS NULL", "a user id in every row"),
        Rule("item_id is present", "NOT torn AND item_id IS NULL", "an item id in every row"),
        Rule("user_id is short enough", f"length(user_id) > {max_id_length}", short),
        Rule("item_id is short enough", f"length(item_id) > {max_id_length}", short),
        Rule("timestamp is present", "NOT torn AND NOT given", "a time in every row"),
        Rule("timestamp is readable", "given AND micros IS NULL", "ISO 8601, a timestamp or an epoch number"),
        Rule("timestamp is not negative", "micros < 0", "1970 or later"),
        Rule("timestamp is not in the future", f"micros > {latest}", future),
        Rule("event is unique", "is_copy", "no (user, item, time) twice; the first is kept"),
        Rule(TORN, "torn", "no torn lines"),
    ]


def find_faulty(session: Session, rules: list[Rule]) -> dict[str, int]:
    """Make the table `faulty` of the view `log`; return how many rows break each rule.

    `faulty` has `row` and `reason`, the place of the first rule that the row breaks.
    """
    _find_copies(session)
    marked = """SELECT log.row AS row, torn, user_id, item_id, micros, given, copies.row IS NOT NULL AS is_copy
        FROM log LEFT JOIN copies ON log.row = copies.row"""
    session.view("marked", marked)
    reasons = " ".join(f"WHEN {rule.broken} THEN {place}" for place, rule in enumerate(rules))
    flags = ", ".join(f"({rule.broken}) AS broken_{place}" for place, rule in enumerate(rules))
    every = f"SELECT row, CASE {reasons} ELSE -1 END AS reason, {flags} FROM marked"
    session.table("faulty", f"SELECT * FROM ({every}) judged WHERE reason >= 0")
    counts = ", ".join(f"count(CASE WHEN broken_{place} THEN 1 END) AS {_name(place)}" for place in range(len(rules)))
    (found,) = session.fetch(f"SELECT {counts} FROM faulty").to_pylist()
    return {rule.name: found[_name(place)] for place, rule in enumerate(rules)}


def _name(place: int) -> str:
    return f"rows_{place}"


def _find_copies(session: Session) -> None:
    """Make the table `copies`: rows before which a complete row has the same user, item and time."""
    # Few keys are there twice, even by chance, so few rows have to be compared in full.
    keys = f"SELECT {_KEY} AS code FROM log WHERE {_COMPLETE}"
    session.table("repeated", f"SELECT code FROM ({keys}) keyed GROUP BY code HAVING count(*) > 1")
    numbered = f"""SELECT row, row_number() OVER (PARTITION BY user_id, item_id, micros ORDER BY row) AS number
        FROM log WHERE {_COMPLETE} AND {_KEY} IN (SELECT code FROM repeated)"""
    session.table("copies", f"SELECT row FROM ({numbered}) numbered WHERE number > 1")
    session.drop("repeated")


def stream_faulty(session: Session) -> Iterator[pa.RecordBatch]:
    """Yield `row` and `reason` of the faulty rows, by row."""
    return session.stream("SELECT row, reason FROM faulty ORDER BY row", ["row"])
