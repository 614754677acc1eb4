"""Histories in the online store, changed atomically: a writer replaces exactly the row that it read.

Rows have Feast's own format, so Feast's SDK and feature server can read them. Feast's push cannot write them safely: it
replaces a row even if the row has changed since it was read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from feast.infra.online_stores.helpers import _redis_key_prefix
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, StringList, Value

from elcrec.serving.histories import History, instant
from elcrec.serving.ports import StoreReplaced

Change = Callable[[str, History], History]
"""Function from a user and their history to the new history; called again if another writer came first."""

_EMPTY = History()
FIELDS = ("item_ids", "event_times", "event_ids", "seen_items")
NEWCOMERS = "elcrec_newcomers"
"""Name of the list of users whom the store knows from events alone: a set on Redis, a table on SQLite."""

EXPIRED_AT_ONCE = 1000
"""Number of users handled together: in a short transaction on SQLite, in a pipeline on Redis."""


class HistoryRows(Protocol):
    """The rows of the view that holds histories."""

    def read(self, user_ids: Sequence[str]) -> dict[str, History]:
        """Return the histories of those users who have one."""

    def update(self, user_ids: Sequence[str], change: Change, entry: "Entry") -> set[str]:
        """Change the histories of distinct users, each atomically; return the users who were refused.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def forget(self, user_id: str) -> int:
        """Erase everything under a user's keys, one per spelling of the id; return the number of rows.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def expire(self, before: int) -> int:
        """Remove everything of users whose newest event is older; return the number of users.

        A user who gets an event meanwhile stays.

        Args:
            before: microseconds since 1970.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def identity(self) -> str | None:
        """Return the name that the last complete publication gave the store; `None` if there was none."""

    def name(self, identity: str) -> None:
        """Name the store when a publication is complete."""


@dataclass(frozen=True)
class Entry:
    """How new users enter the store, which keeps a list of those whom it knows from events alone.

    Attributes:
        published: whether the users are in a publication, and so leave that list.
        most: largest length of the list; `None` for any length.
    """

    published: bool = False
    most: int | None = None


@dataclass(frozen=True)
class StoredHistory:
    """A row in Feast's form: the history, and the time by which Feast compares rows, in microseconds."""

    history: History = _EMPTY
    time: int = -1

    def successor(self, history: History) -> tuple[dict[str, Value], datetime]:
        """Return the values and the time of the row that replaces this one.

        The time is that of the newest event, but always later than before: on Redis, we and Feast use it to distinguish
        rows, and a late event changes a row without being its newest.
        """
        time = max(*history.times[-1:], self.time + 1, 0)
        values = {
            "item_ids": Value(string_list_val=StringList(val=history.item_ids)),
            "event_times": Value(int64_list_val=Int64List(val=history.times)),
            "event_ids": Value(string_list_val=StringList(val=history.event_ids)),
            "seen_items": Value(string_list_val=StringList(val=history.seen)),
        }
        return values, instant(time)


def history_of(values: dict[str, Value]) -> History:
    """Return the history that a row's values hold."""
    return History(
        item_ids=list(values["item_ids"].string_list_val.val),
        times=list(values["event_times"].int64_list_val.val),
        event_ids=list(values["event_ids"].string_list_val.val),
        # Rows of earlier versions lack this column.
        seen=list(values["seen_items"].string_list_val.val) if "seen_items" in values else [],
    )


def entity_key(user_id: str) -> EntityKey:
    """Return Feast's key of a user."""
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)])


KEY_PREFIX: bytes = _redis_key_prefix(["user_id"])
"""Prefix of the serialized key of every user."""


def user_of(key: bytes) -> str:
    """Return the id in a serialized key, after its type and its length of four bytes each."""
    return key[len(KEY_PREFIX) + 8 :].decode(errors="replace")


def is_idle(event_times: bytes, before: int) -> bool:
    """Return whether the last time in a serialized column is before that; a row of dislikes alone has no times."""
    times = Value.FromString(event_times).int64_list_val.val
    return bool(times) and int(times[-1]) < before


def store_replaced() -> StoreReplaced:
    """Return the error for a store that is another one than was published."""
    what = "the online store is not the one that was published: it was emptied, replaced, or published only in part"
    return StoreReplaced(what, fix="run `elcrec push` again, or restore it")
