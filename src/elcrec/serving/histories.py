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
"""Largest number of seen items of a history: a bound that no real user reaches."""
MAX_UNKNOWN = 10
"""Largest number of events of items that the catalogue lacks; they do not count towards the window."""
_CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead of our clock a live event may be: the sender's clock differs, and may use another time zone."""

UNITS = (86_400_000_000, 60_000_000, 1_000_000, 1000, 1)
"""Units that the times of a log may be whole multiples of: day, minute, second, millisecond, microsecond."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
PUBLISHED = "\0"
"""Prefix of the id of an event that a publication brought; the rest is empty if the log has no ids."""


class EventOutcome(Enum):
    """The outcome of one event."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    LATE = auto()


@dataclass(frozen=True, kw_only=True)
class History:
    """Recent events of one user, oldest first; those with equal times are in order of arrival.

    Attributes:
        item_ids: raw ids, [T].
        times: in non-decreasing order, [T].
        event_ids: `event_key` of each live event; for an event that a publication brought, PUBLISHED followed by the
            log's id, if the log has ids, [T].
        seen: distinct raw ids of items met before those in the window. An item that the user dislikes is there twice:
            as it is, for models that recommend nothing twice, and after DISLIKED, for models that do.
    """

    item_ids: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether it holds an event or a seen item."""
        return bool(self.item_ids or self.seen)


def add_events(
    history: History,
    events: Sequence[Event],
    window: int,
    *,
    knows: Container[str] | None = None,
    dislikes: Container[str] = (),
) -> tuple[History, Counter[EventOutcome]]:
    """Insert a user's events in order of time and keep the newest `window` events of known items.

    The order of `events` matters only for equal times. Adding an event again changes nothing.

    Args:
        history: the present history.
        events: new events of this user.
        window: largest number of events of known items; there are at most MAX_UNKNOWN events of other items besides.
        knows: the catalogue; `None` knows every item.
        dislikes: kinds of events that express dislike.
    """
    logged = [time for time, key in zip(history.times, history.event_ids, strict=True) if is_published(key)]
    rows = _Rows(history, window, knows, _resolution(logged))
    outcomes: Counter[EventOutcome] = Counter()
    for event in events:
        if event.kind is not None and event.kind in dislikes:
            outcomes[rows.dislike(event.item_id)] += 1
        else:
            outcomes[rows.add(event.item_id, microseconds(event.timestamp), event_key(event))] += 1
    # An event that this call inserted and pushed out again is not part of the resulting history.
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
    """Replace the events of earlier publications; live events that `published` lacks stay, and so do seen items.

    Earlier published events from after the end of this log stay too: they come from a newer log.

    Args:
        history: the present history.
        published: the history in the log.
        window: as in `add_events`.
        resolution: microseconds of which the log's times are whole multiples. A live event is the same as an event of
            the log if they share an id, or if its time, cut or rounded to this unit, is the same.
        knows: as in `add_events`.
        until: time of the newest event of this log; `None` if times are only an order.
    """
    rows = _Rows(published, window, knows, resolution)
    for item_id in history.seen:
        rows.see(item_id)
    for item_id, time, key in zip(history.item_ids, history.times, history.event_ids, strict=True):
        if not is_published(key) or (until is not None and time > until):
            rows.add(item_id, time, key)
    return rows.history()


def event_key(event: Event) -> str:
    """Return the key of an event, unique among those of its user: the sender's id, else item and time."""
    return event.event_id or f"{microseconds(event.timestamp)}:{event.item_id}"


def is_published(key: str) -> bool:
    """Return whether a publication brought the event."""
    return not key or key.startswith(PUBLISHED)


def _resolution(times: Sequence[int]) -> int:
    """Return the largest usual unit, in microseconds, of which all times are whole multiples."""
    return next(unit for unit in UNITS if not any(time % unit for time in times))


class _Rows:
    """A history while it is changed."""

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
        # If there is no room, an event as old as the oldest one is too late as well: it would push out its equal, and
        # replaying both would never settle.
        if len(alike) >= room and time <= alike[0][0]:
            self.see(item_id)
            return EventOutcome.LATE
        self._rows.insert(bisect_right(self._rows, time, key=lambda row: row[0]), (time, item_id, key))
        # The key of an event that is pushed out stays here: the same batch may hold the event twice.
        self._identities.add((time, item_id))
        if key:
            self._keys.add(key.removeprefix(PUBLISHED))
        self._new.add(key)
        if len(alike) >= room:
            self._expel(alike[0])
        return EventOutcome.ACCEPTED

    def _is_logged(self, item_id: str, time: int) -> bool:
        """Return whether a publication brought the event with its time cut or rounded."""
        places = {time // self._resolution, -(-time // self._resolution)}
        return any((place, item_id) in self._logged for place in places)

    def see(self, item_id: str) -> None:
        """Remember an item of the catalogue as seen, or, after DISLIKED, as disliked."""
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
        """Return the rows that compete for room with an event of this item, and their largest number."""
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
        raise UserError(problem, where=where, fix="correct it; no event was written")


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
    """Return the exact time in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def instant(time: int) -> datetime:
    """Return the exact time from microseconds since 1970."""
    return _EPOCH + time * _MICROSECOND
