"""Rules for rows: what makes a single row of a log faulty."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.forgotten import Forgotten
from elcrec.data.interactions import EVENT_ID, KIND
from elcrec.data.log import KEPT, SPELLING
from elcrec.data.times import TIMESTAMP

CLOCK_TOLERANCE = timedelta(days=1)
"""Times this far ahead of now are accepted: clocks differ, and times without a zone are read as UTC."""

FORGOTTEN = -1
"""Value used in place of a rule's position."""

UNIQUE = "event is unique"
PLAUSIBLE = "timestamp is plausible"

_TORN = "torn"
_FUTURE = "timestamp is not in the future"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVENT = ["user_id", "item_id", "micros"]
_EVENT_BY_ID = ["user_id", EVENT_ID]


class Rule(NamedTuple):
    """A condition that rows must satisfy.

    Attributes:
        broken: the condition in SQL under which a row breaks the rule.
        expected: the rule in words.
    """

    name: str
    broken: str
    expected: str

    @property
    def about_torn(self) -> bool:
        """Whether it is the rule about torn rows."""
        return self.broken == _TORN

    @property
    def about_present(self) -> bool:
        """Whether it compares a time with the present, which has no meaning if times are only an order."""
        return self.name == _FUTURE


def latest_time(now: datetime) -> int:
    """Return the latest accepted time in microseconds."""
    return (now + CLOCK_TOLERANCE - _EPOCH) // _MICROSECOND


def row_rules(
    max_id_length: int,
    now: datetime,
    *,
    earliest: int = 0,
    event_ids: bool,
    whole: str,
) -> list[Rule]:
    """Return the rules; a faulty row is counted under the first rule that it breaks.

    Args:
        max_id_length: largest length of an id in characters.
        now: the present time.
        earliest: the first plausible time in microseconds; 0 for no limit.
        event_ids: whether the log has ids of events.
        whole: the condition for a row that is not torn, in words.
    """
    latest, since = latest_time(now), f"{_EPOCH + earliest * _MICROSECOND:%Y-%m-%d} or later"
    plausible = [Rule(PLAUSIBLE, f"micros >= 0 AND micros < {earliest}", since)] if earliest else []
    short = f"{max_id_length} characters at most"
    future = "a day ahead of the clock at most"
    return [
        Rule("user_id is present", "NOT torn AND user_id IS NULL", "a user id in every row"),
        Rule("item_id is present", "NOT torn AND item_id IS NULL", "an item id in every row"),
        Rule("user_id is short enough", f"length(user_id) > {max_id_length}", short),
        Rule("item_id is short enough", f"length(item_id) > {max_id_length}", short),
        *([Rule("event_id is short enough", f"length(event_id) > {max_id_length}", short)] if event_ids else []),
        Rule("timestamp is present", "NOT torn AND NOT given", "a time in every row"),
        Rule(
            "timestamp is readable",
            "given AND micros IS NULL",
            "ISO 8601, a compact date, or an epoch number of the unit that is set",
        ),
        Rule("timestamp is not negative", "micros < 0", "1970 or later"),
        *plausible,
        Rule(_FUTURE, f"micros > {latest}", future),
        Rule(UNIQUE, "is_copy", "no (user, item, time) or (user, event_id) twice; the first is kept"),
        Rule(whole, _TORN, "no torn lines"),
    ]


def find_faulty(
    session: Session, rules: list[Rule], *, event_ids: bool, kinds: bool = False, repeats: bool = False
) -> dict[str, int]:
    """Create the table `faulty` from the view `log`; return the number of rows that break each rule.

    `faulty` has `row` and `reason`, the position of the first rule that the row breaks.

    Args:
        session: the session of the engine.
        rules: the rules to check.
        event_ids: whether the log has ids of events.
        kinds: whether the log has kinds of events; events of two kinds are not copies of each other.
        repeats: whether rows of one user, item and time are different events, unless they have the same id.
    """
    if repeats:
        session.table("copies", "SELECT row FROM log WHERE row < 0")
    else:
        _find_copies(session, [*_EVENT, f"coalesce({KIND}, '')"] if kinds else _EVENT, "copies")
    if event_ids:
        _find_copies(session, _EVENT_BY_ID, "copies_by_id")
        session.table("all_copies", "SELECT row FROM copies UNION SELECT row FROM copies_by_id")
        session.rename("all_copies", "copies")
    marked = "SELECT log.*, copies.row IS NOT NULL AS is_copy FROM log LEFT JOIN copies ON log.row = copies.row"
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


def _find_copies(session: Session, columns: Sequence[str], name: str) -> None:
    """Create a table of the `row`s that repeat an earlier row in these columns, in which no value is missing."""
    key, complete = ", ".join(columns), " AND ".join(f"{column} IS NOT NULL" for column in columns)
    # Few keys occur twice, even by chance, so few rows must be compared in full.
    keys = f"SELECT xxhash64({key}) AS code FROM log WHERE {complete}"
    session.table("repeated", f"SELECT code FROM ({keys}) keyed GROUP BY code HAVING count(*) > 1")
    numbered = f"""SELECT row, row_number() OVER (PARTITION BY {key} ORDER BY row) AS number
        FROM log WHERE {complete} AND xxhash64({key}) IN (SELECT code FROM repeated)"""
    session.table(name, f"SELECT row FROM ({numbered}) numbered WHERE number > 1")
    session.drop("repeated")


def leave_out_forgotten(session: Session, forgotten: Forgotten, *, spellings: bool = False) -> int:
    """Create the view `log` of `staged` without the rows of forgotten users; return their number.

    The table `forgotten_rows` gets these rows: the events of forgotten users until their moment, and their rows without
    a time. If the log has the original spellings of ids, a user may be on the list in any spelling.
    """
    found = forgotten.among(_users(session)) if forgotten.until else {}
    if forgotten.until and spellings:
        found = _latest(found, forgotten, session)
    until = pa.array(found.values(), TIMESTAMP).cast(pa.int64())
    session.enter("forgotten", pa.table({"user_id": pa.array(found, pa.string()), "until": until}))
    theirs = """SELECT staged.row AS row FROM staged JOIN forgotten ON staged.user_id = forgotten.user_id
        WHERE staged.micros IS NULL OR staged.micros <= forgotten.until"""
    session.table("forgotten_rows", theirs)
    absent = "NOT EXISTS (SELECT 1 FROM forgotten_rows WHERE forgotten_rows.row = staged.row)"
    session.view("log", f"SELECT * FROM staged WHERE {absent}" if found else "SELECT * FROM staged")
    (counted,) = session.fetch("SELECT count(*) AS events FROM forgotten_rows").to_pylist()
    return int(counted["events"])


def _users(session: Session) -> Iterator[str]:
    session.table("users", "SELECT user_id, min(row) AS first FROM staged WHERE user_id IS NOT NULL GROUP BY user_id")
    for batch in session.stream("SELECT first, user_id FROM users ORDER BY first", ["first"]):
        yield from batch.column("user_id").to_pylist()
    session.drop("users")


def leave_out_others(session: Session) -> int:
    """Remove the rows that do not count from the view `log`; return their number. They are written nowhere."""
    (found,) = session.fetch(f"SELECT count(*) AS rows FROM log WHERE NOT {KEPT}").to_pylist()
    if found["rows"]:
        others = f"SELECT row FROM log WHERE NOT {KEPT}"
        session.table("left_out", f"SELECT row FROM forgotten_rows UNION ALL {others}")
        session.rename("left_out", "forgotten_rows")
        absent = "NOT EXISTS (SELECT 1 FROM forgotten_rows WHERE forgotten_rows.row = staged.row)"
        session.view("log", f"SELECT * FROM staged WHERE {absent}")
    return int(found["rows"])


def _latest(found: dict[str, datetime], forgotten: Forgotten, session: Session) -> dict[str, datetime]:
    """Add users who are on the list in another spelling, with the latest moment of all their spellings."""
    session.table(
        "spellings",
        "SELECT user_id, spelling, min(row) AS first FROM staged WHERE spelling IS NOT NULL GROUP BY user_id, spelling",
    )
    for batch in session.stream("SELECT first, user_id, spelling FROM spellings ORDER BY first", ["first"]):
        users, spellings = (batch.column(name).to_pylist() for name in ("user_id", SPELLING))
        listed = forgotten.among(spellings)
        for user, spelling in zip(users, spellings, strict=True):
            if user is not None and spelling in listed:
                found[user] = max(listed[spelling], found.get(user, listed[spelling]))
    session.drop("spellings")
    return found


def stream_set_aside(session: Session) -> Iterator[pa.RecordBatch]:
    """Yield `row` and `reason` of faulty rows, and of forgotten rows with the reason FORGOTTEN, ordered by row."""
    forgotten = f"SELECT row, {FORGOTTEN} AS reason FROM forgotten_rows"
    return session.stream(f"SELECT row, reason FROM faulty UNION ALL {forgotten} ORDER BY row", ["row"])
