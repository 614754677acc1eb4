"""A user's history as the online store keeps it: how live events and publications change it.

Times are microseconds since 1970, UTC.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from elcrec.data.rows import CLOCK_TOLERANCE
from elcrec.errors import UserError
from elcrec.serving.ports import Event

MAX_ID_LENGTH = 256
"""Longest id in characters, as `validate.max_id_length` by default."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PUBLISHED = ""


class Fate(Enum):
    """What becomes of one event."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    LATE = auto()


@dataclass(frozen=True, kw_only=True)
class History:
    """Recent events of one user, oldest first; equal times stand in order of arrival.

    Attributes:
        item_ids: raw ids, [T].
        times: never falling, [T].
        event_ids: id of each live event, empty for what a publication brought, [T].
    """

    item_ids: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.item_ids)


def add_events(history: History, events: Sequence[Event], window: int) -> tuple[History, Counter[Fate]]:
    """Put a user's events in their places and keep the newest `window`.

    The order of `events` does not matter but for equal times, and adding an event again changes nothing.
    """
    rows = _Rows(history)
    fates: Counter[Fate] = Counter()
    for event in events:
        fates[rows.add(event.item_id, microseconds(event.timestamp), event.event_id, window)] += 1
    # What this call put in and pushed out again was never part of the history that it leaves.
    fates[Fate.ACCEPTED] -= rows.expelled
    fates[Fate.LATE] += rows.expelled
    return rows.history(), fates


def merge_publication(history: History, published: History, window: int) -> History:
    """Replace what earlier publications brought; live events that `published` lacks stay."""
    rows = _Rows(published)
    for item_id, time, event_id in zip(history.item_ids, history.times, history.event_ids, strict=True):
        if event_id != _PUBLISHED:
            rows.add(item_id, time, event_id, window)
    return rows.history()


class _Rows:
    """A history under change."""

    def __init__(self, history: History) -> None:
        self._rows = list(zip(history.times, history.item_ids, history.event_ids, strict=True))
        self._known = {(time, item_id) for time, item_id, _ in self._rows}
        self._ids = {event_id for _, _, event_id in self._rows if event_id}
        self._new: set[str] = set()
        self.expelled = 0

    def add(self, item_id: str, time: int, event_id: str | None, window: int) -> Fate:
        identity = event_id or f"{time}:{item_id}"
        if (time, item_id) in self._known or identity in self._ids:
            return Fate.DUPLICATE
        # Equal to the oldest of a full window is too old as well: letting it in would push out its equal,
        # and replaying both would never come to rest.
        if len(self._rows) >= window and time <= self._rows[0][0]:
            return Fate.LATE
        self._rows.insert(bisect_right(self._rows, time, key=lambda row: row[0]), (time, item_id, identity))
        self._known.add((time, item_id))
        self._ids.add(identity)
        self._new.add(identity)
        self._cut(window)
        return Fate.ACCEPTED

    def _cut(self, window: int) -> None:
        # What was pushed out stays known here: the same batch may hold it twice.
        while len(self._rows) > window:
            self.expelled += self._rows.pop(0)[2] in self._new

    def history(self) -> History:
        return History(
            item_ids=[item_id for _, item_id, _ in self._rows],
            times=[time for time, _, _ in self._rows],
            event_ids=[event_id for _, _, event_id in self._rows],
        )


def require_valid(event: Event, *, now: datetime, where: object = None) -> None:
    """Check one event.

    Raises:
        UserError: an id is empty or too long, or the time has no zone, is before 1970 or in the future.
    """
    problem = _problem(event, now)
    if problem:
        raise UserError(problem, where=where, fix="mend it; no event was written")


def _problem(event: Event, now: datetime) -> str | None:
    ids = {"user_id": event.user_id, "item_id": event.item_id, "event_id": event.event_id}
    for name, value in ids.items():
        if value is None and name == "event_id":
            continue
        if not value or not value.strip():
            return f"{name} is empty"
        if len(value) > MAX_ID_LENGTH:
            return f"{name} is longer than {MAX_ID_LENGTH} characters"
    if event.timestamp.tzinfo is None:
        return "timestamp has no time zone"
    if event.timestamp < _EPOCH:
        return "timestamp is before 1970"
    if event.timestamp > now + CLOCK_TOLERANCE:
        return "timestamp is more than a day in the future"
    return None


def microseconds(moment: datetime) -> int:
    """Return the time in microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def instant(time: int) -> datetime:
    """Return the time of so many microseconds since 1970, exactly."""
    return _EPOCH + time * _MICROSECOND
