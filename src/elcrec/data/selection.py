"""Selection of the accepted events that become sequences, in SQL, and the meaning of their kinds."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.config import KindsConfig, SequencesConfig
from elcrec.data.engine import Session
from elcrec.data.interactions import EVENT_ID, KIND, TIE
from elcrec.data.sessions import SESSION_MARK

CODE = "code"
"""The column with an event's kind: its number (from 1) among the configured kinds, 0 for any other."""

_MINUTE = 60_000_000
_DISLIKES = ["first", "micros", "row"]


class Kinds(NamedTuple):
    """The meaning of kinds, by code.

    Attributes:
        weights: weights in L_next; `None` if all are 1.
        targets: which kinds may be targets; `None` if all may.
    """

    weights: npt.NDArray[np.float32] | None
    targets: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, config: KindsConfig) -> "Kinds":
        """Return the meaning of the configured kinds."""
        names = ["", *config.named]
        weights = np.array([config.weights.get(name, 1.0) for name in names], np.float32)
        targets = np.array([name in config.targets for name in names])
        return cls(weights if config.weights else None, targets if config.targets else None)


def select_events(session: Session, own: Collection[str], config: SequencesConfig) -> list[str]:
    """Create the view `log` of `interactions`, and `disliked` if kinds express dislike; return further columns.

    The view has `row`, `user_id`, `item_id`, `micros`, `event_id` and `tie` if the log has them, and `code` if kinds
    are configured.
    """
    kinds, more = config.kinds.named, [name for name in (EVENT_ID, TIE) if name in own]
    columns = ["row", "user_id", "item_id", "unix_micros(timestamp) AS micros", *more]
    joined = ""
    if kinds:
        codes = pa.array(range(1, len(kinds) + 1), pa.int64())
        session.enter("kinds", pa.table({"name": pa.array(kinds, pa.string()), CODE: codes}))
        columns.append(f"coalesce(kinds.{CODE}, 0) AS {CODE}")
        joined, more = f" LEFT JOIN kinds ON interactions.{KIND} = kinds.name", [*more, CODE]
    session.view("read", f"SELECT {', '.join(columns)} FROM interactions{joined}")
    events = _usual(session, _liked(session, config), config)
    session.view("log", f"SELECT * FROM {_cut_sessions(session, events, config, more)}")
    return more


def _liked(session: Session, config: SequencesConfig) -> str:
    if not config.kinds.dislikes:
        return "read"
    noes = ", ".join(str(config.kinds.named.index(name) + 1) for name in config.kinds.dislikes)
    session.view("disliked", f"SELECT * FROM read WHERE {CODE} IN ({noes})")
    session.view("liked", f"SELECT * FROM read WHERE {CODE} NOT IN ({noes})")
    return "liked"


def _usual(session: Session, events: str, config: SequencesConfig) -> str:
    """Drop users who have too many events."""
    if not config.most_events:
        return events
    session.table("busy", f"SELECT user_id FROM {events} GROUP BY user_id HAVING count(*) > {config.most_events}")
    absent = f"NOT EXISTS (SELECT 1 FROM busy WHERE busy.user_id = {events}.user_id)"
    session.view("usual", f"SELECT * FROM {events} WHERE {absent}")
    return "usual"


def _cut_sessions(session: Session, events: str, config: SequencesConfig, more: Collection[str]) -> str:
    """Give each of a user's earlier sessions its own user id."""
    if config.session_gap is None:
        return events
    gap, window = round(config.session_gap * _MINUTE), "OVER (PARTITION BY user_id ORDER BY micros, row)"
    session.view("stepped", f"SELECT *, lag(micros) {window} AS before FROM {events}")
    begins = f"CASE WHEN before IS NULL OR micros - before > {gap} THEN 1 ELSE 0 END"
    session.view("numbered", f"SELECT *, CAST(sum({begins}) {window} AS BIGINT) AS session FROM stepped")
    session.table("sessions", "SELECT *, max(session) OVER (PARTITION BY user_id) AS newest FROM numbered")
    own = f"CASE WHEN session = newest THEN user_id ELSE user_id || '{SESSION_MARK}' || CAST(session AS STRING) END"
    columns = ", ".join(["row", "item_id", "micros", *more])
    session.view("in_sessions", f"SELECT {columns}, {own} AS user_id FROM sessions")
    return "in_sessions"


def stream_dislikes(session: Session) -> Iterator[pa.RecordBatch]:
    """Yield `first` (of the user), `item_index`, `micros` and `row` of disliked items, by user and time."""
    session.table(
        "noes",
        """SELECT named_users.first AS first, named_items.item_index AS item_index, disliked.micros AS micros,
        disliked.row AS row FROM disliked JOIN named_users ON disliked.user_id = named_users.name
        JOIN named_items ON disliked.item_id = named_items.name""",
    )
    return session.stream(f"SELECT * FROM noes ORDER BY {', '.join(_DISLIKES)}", _DISLIKES)
