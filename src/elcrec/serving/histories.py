"""A user's history as the online store keeps it: how live events and publications change it.

Times are microseconds since 1970, UTC.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from elcrec.config import MAX_ID_LENGTH
from elcrec.data.split_points import DISLIKED
from elcrec.errors import UserError
from elcrec.serving.ports import Event

MAX_SEEN = 100_000
"""Most items that a history remembers beyond its window, so that they are not recommended again: a bound that nobody
meets."""
MAX_UNKNOWN = 10
"""Most events of items that the catalogue lacks; they take no place of the window."""
_CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead of this clock a live event may be: its sender has a clock of its own, and names its time zone."""

UNITS = (86_400_000_000, 60_000_000, 1_000_000, 1000, 1)
"""What the times of a log may be whole multiples of: a day, a minute, a second, a millisecond, a microsecond."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
PUBLISHED = "\0"
"""The id of an event that a publication brought begins with it, and is empty where the log has none."""


class EventOutcome(Enum):
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
        event_ids: `event_key` of each live event; of what a publication brought PUBLISHED and the log's id, or
            nothing where the log has none, [T].
        seen: distinct raw ids of items met before all that the window holds; of an item that the user dislikes, its id
            as it is, for models that recommend nothing twice, and after DISLIKED, for those that do.
    """

    item_ids: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether it tells anything."""
        return bool(self.item_ids or self.seen)


def add_events(
    history: History,
    events: Sequence[Event],
    window: int,
    *,
    knows: Container[str] | None = None,
    dislikes: Container[str] = (),
) -> tuple[History, Counter[EventOutcome]]:
    """Put a user's events in their places and keep the newest `window` of known items.

    The order of `events` does not matter but for equal times, and adding an event again changes nothing.

    Args:
        history: what was there.
        events: of this user.
        window: most events of known items; beside them stand at most MAX_UNKNOWN of other items.
        knows: the catalogue; `None` knows every item.
        dislikes: kinds of events that say no.
    """
    logged = [time for time, key in zip(history.times, history.event_ids, strict=True) if is_published(key)]
    rows = _Rows(history, window, knows, _resolution(logged))
    outcomes: Counter[EventOutcome] = Counter()
    for event in events:
        if event.kind is not None and event.kind in dislikes:
            outcomes[rows.dislike(event.item_id)] += 1
        else:
            outcomes[rows.add(event.item_id, microseconds(event.timestamp), event_key(event))] += 1
    # What this call put in and pushed out again was never part of the history that it leaves.
    outcomes[EventOutcome.ACCEPTED] -= rows.expelled
    outcomes[EventOutcome.LATE] += rows.expelled
    return rows.history(), outcomes


def merge_publication(
    history: History,
    published: History,
    window: int,
    *,
    resolution: int = 1,
    knows: Container[str] | None = None,
    until: int | None = None,
) -> History:
    """Replace what earlier publications brought; live events that `published` lacks stay, and so do seen items.

    What an earlier publication brought from after the end of this log stays too: that log was the newer one.

    Args:
        history: what was there.
        published: what the log says.
        window: as in `add_events`.
        resolution: microseconds that the log's times are whole multiples of; a live event that it holds under its
            id, or with its time cut or rounded to that, is the log's event.
        knows: as in `add_events`.
        until: time of the newest event of this log; `None` where times are only an order.
    """
    rows = _Rows(published, window, knows, resolution)
    for item_id in history.seen:
        rows.see(item_id)
    for item_id, time, key in zip(history.item_ids, history.times, history.event_ids, strict=True):
        if not is_published(key) or (until is not None and time > until):
            rows.add(item_id, time, key)
    return rows.history()


def event_key(event: Event) -> str:
    """Return what an event is known by among those of its user: the sender's id, else item and time."""
    return event.event_id or f"{microseconds(event.timestamp)}:{event.item_id}"


def is_published(key: str) -> bool:
    """Say whether a publication brought the event."""
    return not key or key.startswith(PUBLISHED)


def _resolution(times: Sequence[int]) -> int:
    """Return the largest usual unit, in microseconds, that all times are whole multiples of."""
    return next(unit for unit in UNITS if not any(time % unit for time in times))


class _Rows:
    """A history under change."""

    def __init__(self, history: History, window: int, knows: Container[str] | None, resolution: int) -> None:
        self._rows = list(zip(history.times, history.item_ids, history.event_ids, strict=True))
        self._identities = {(time, item_id) for time, item_id, _ in self._rows}
        self._logged = {(time // resolution, item_id) for time, item_id, key in self._rows if is_published(key)}
        self._resolution = resolution
        self._keys = {key.removeprefix(PUBLISHED) for _, _, key in self._rows if key}
        self._seen = dict.fromkeys(history.seen)
        self._window, self._catalogue = window, knows
        self._new: set[str] = set()
        self.expelled = 0

    def add(self, item_id: str, time: int, key: str) -> EventOutcome:
        known = key.removeprefix(PUBLISHED) in self._keys
        if known or (time, item_id) in self._identities or self._is_logged(item_id, time):
            return EventOutcome.DUPLICATE
        alike, room = self._alike(item_id)
        # Equal to the oldest where there is no room is too old as well: letting it in would push out its equal,
        # and replaying both would never come to rest.
        if len(alike) >= room and time <= alike[0][0]:
            self.see(item_id)
            return EventOutcome.LATE
        self._rows.insert(bisect_right(self._rows, time, key=lambda row: row[0]), (time, item_id, key))
        # What is pushed out stays known here: the same batch may hold it twice.
        self._identities.add((time, item_id))
        if key:
            self._keys.add(key.removeprefix(PUBLISHED))
        self._new.add(key)
        if len(alike) >= room:
            self._expel(alike[0])
        return EventOutcome.ACCEPTED

    def _is_logged(self, item_id: str, time: int) -> bool:
        """Say whether a publication brought the event with its time cut or rounded."""
        places = {time // self._resolution, -(-time // self._resolution)}
        return any((place, item_id) in self._logged for place in places)

    def see(self, item_id: str) -> None:
        """Remember an item that the catalogue knows, or that it is disliked."""
        if self._knows(item_id.removeprefix(DISLIKED)):
            self._seen.setdefault(item_id)

    def dislike(self, item_id: str) -> EventOutcome:
        if DISLIKED + item_id in self._seen:
            return EventOutcome.DUPLICATE
        self.see(item_id)
        self.see(DISLIKED + item_id)
        return EventOutcome.ACCEPTED

    def _knows(self, item_id: str) -> bool:
        return self._catalogue is None or item_id in self._catalogue

    def _alike(self, item_id: str) -> tuple[list[tuple[int, str, str]], int]:
        """Return the rows that compete with one of this item for room, and how many there may be."""
        known = self._knows(item_id)
        alike = [row for row in self._rows if self._knows(row[1]) == known]
        return alike, self._window if known else MAX_UNKNOWN

    def _expel(self, row: tuple[int, str, str]) -> None:
        self._rows.remove(row)
        self.expelled += row[2] in self._new
        self.see(row[1])

    def history(self) -> History:
        return History(
            item_ids=[item_id for _, item_id, _ in self._rows],
            times=[time for time, _, _ in self._rows],
            event_ids=[key for _, _, key in self._rows],
            seen=list(self._seen)[-MAX_SEEN:],
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
    ids = {"user_id": event.user_id, "item_id": event.item_id}
    optional = {"event_id": event.event_id, "answer_id": event.answer_id, "kind": event.kind}
    for name, value in (ids | optional).items():
        problem = None if value is None and name in optional else _problem_of_id(value)
        if problem:
            return f"{name} {problem}"
    if event.timestamp.tzinfo is None:
        return "timestamp has no time zone"
    if event.timestamp < _EPOCH:
        return "timestamp is before 1970"
    if event.timestamp > now + _CLOCK_SKEW:
        return "timestamp is in the future"
    return None


def _problem_of_id(value: str | None) -> str | None:
    if not value or not value.strip():
        return "is empty"
    if len(value) > MAX_ID_LENGTH:
        return f"is longer than {MAX_ID_LENGTH} characters"
    return "begins with a NUL character" if value.startswith(PUBLISHED) else None


def microseconds(moment: datetime) -> int:
    """Return the time in microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def instant(time: int) -> datetime:
    """Return the time of so many microseconds since 1970, exactly."""
    return _EPOCH + time * _MICROSECOND
