"""Requests and answers of the server's plain JSON routes."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from elcrec.config import LimitsConfig
from elcrec.data.ids import normal_id
from elcrec.errors import UserError
from elcrec.serving.arms import Arm
from elcrec.serving.event_file import read_moment
from elcrec.serving.histories import require_valid
from elcrec.serving.ports import Event, HistorySource

T = TypeVar("T")
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Id = Name | int
"""A raw id; a number stands for the id with the same digits."""

DEFAULT_K = 10
"""Items of an answer where a request does not say how many."""
_NOT_JSON, _INVALID = 400, 422
_ZONE = re.compile(r"^[0-9.]+$|(Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})$", re.IGNORECASE)


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """A request that is answered with a client's error."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        """Take the HTTP status, the problem and its remedy, and headers of the answer."""
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Filters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be recommended."""

    allow: list[Id] | UnsetType = UNSET
    """Only these items; if absent, all."""
    deny: list[Id] = []
    """Not these items."""
    categories: list[Name] | UnsetType = UNSET
    """Only items of these categories of the items file; if absent, all, and items without a category."""
    deny_categories: list[Name] = []
    """Not items of these."""


class RecommendRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for recommendations."""

    user_id: Id | UnsetType = UNSET
    """The user, whose history is read from the online store."""
    history: list[Id] | UnsetType = UNSET
    """Raw item ids, oldest first; together with a `user_id`, it is used only if the store does not answer."""
    k: Annotated[int, Meta(ge=1)] = DEFAULT_K
    """How many items."""
    filters: Filters = Filters()
    """What may be recommended."""
    with_history: bool = False
    """Whether the answer repeats the history."""
    explain: bool = False
    """Whether each item comes with the items of the history that contribute to its score."""


class ReasonAnswer(Struct, frozen=True, kw_only=True):
    """An item of the history, and how far a score would fall without it."""

    item_id: str
    contribution: float


class ScoredItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of an answer."""

    item_id: str
    score: float
    title: str | UnsetType = UNSET
    """Its title; like the other fields of the items file, only if the file has one."""
    category: str | UnsetType = UNSET
    details: dict[str, str] | UnsetType = UNSET
    """The file's further columns."""
    propensity: float | UnsetType = UNSET
    """Chance with which it was drawn for its place; only if the model's rules explore."""
    because: list[ReasonAnswer] | UnsetType = UNSET
    """The items of the history that contribute most to the score, largest first; only if asked for."""
    new: bool = False
    """Whether its vector was given, not trained; only if an explanation was asked for."""


class IntentAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The nearest intent of the history."""

    index: int
    name: str = ""
    """Name, made of categories and titles of the items file; absent without an items file."""
    typical_items: list[str]
    """Items typical of the intent, best first; empty if the evaluation found no user with it."""


class HistoryAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The history that was ranked with."""

    source: HistorySource
    known: int
    """Items that the model knows."""
    skipped: int
    """Items that it does not know."""
    stale: bool
    """Whether the newest event of the store's history is older than `serve.stale_after`."""
    item_ids: list[str] | UnsetType = UNSET
    """The history, oldest first; only if asked for."""


class ModelAnswer(Struct, frozen=True, kw_only=True):
    """The model that answered."""

    name: str
    version: str


class RecommendResponse(Struct, frozen=True, kw_only=True):
    """Recommendations for one user."""

    answer_id: str
    """Id of this answer; an event that follows from it may name it."""
    items: list[ScoredItem]
    """Best first; fewer than k if history and filters leave fewer."""
    source: Literal["model", "popular"]
    """`popular`: no item of the history is known, so the scores are shares of the training interactions."""
    intent: IntentAnswer | None
    history: HistoryAnswer
    store_available: bool
    """False if the online store did not answer in time, and the request's own history (or none) was used."""
    model: ModelAnswer
    arm: Arm | UnsetType = UNSET
    """The user's arm of the running test (`serve.challenger.mode=split`); absent if none runs, or the request names no
    user. If the challenger fails, the champion answers for it; `model` names the one that did."""
    titles: dict[str, str] | UnsetType = UNSET
    """Titles of the history's and the intent's items, as far as the items file has them; only if the history was asked
    for."""


class SimilarResponse(Struct, frozen=True, kw_only=True):
    """Items like one item."""

    item_id: str
    kind: Literal["next", "near"]
    items: list[ScoredItem]
    """Best first. `next`: recommendations for a history of this item alone; `near`: by cosine of the item vectors."""
    model: ModelAnswer


class IntentSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An intent of the model that serves; each training numbers its intents anew."""

    index: int
    name: str = ""
    """Name, made of categories and titles of the items file; absent without an items file."""
    items: int
    """Number of items with this intent."""
    share: float | None
    """Share of the evaluated users with this intent."""
    typical_items: list[str]


class IntentsResponse(Struct, frozen=True, kw_only=True):
    """All intents; empty for a model without intents."""

    intents: list[IntentSummary]
    model: ModelAnswer


class IntentItemsResponse(Struct, frozen=True, kw_only=True):
    """The items of an intent that are available."""

    index: int
    items: list[ScoredItem]
    """Most popular first; the scores are shares of the training interactions."""
    model: ModelAnswer


class EventRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user interacted with an item."""

    user_id: Id
    item_id: Id
    timestamp: str | int | float | UnsetType = UNSET
    """RFC 3339 with a zone, or seconds since 1970; if absent, now."""
    event_id: Id | UnsetType = UNSET
    """The sender's id of the event; an event that is sent again counts once."""
    answer_id: Name | UnsetType = UNSET
    """The answer that showed the item, if any."""
    kind: Name | UnsetType = UNSET
    """Kind of the event, as in the log: the item of a dislike (`sequences.kinds`) is never recommended again."""


class EventsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events to append to histories."""

    events: Annotated[list[EventRequest], Meta(min_length=1)]


class EventsResponse(Struct, frozen=True, kw_only=True):
    """The outcome of the events."""

    accepted: int
    """Events that are now part of a history."""
    duplicates: int
    """There already."""
    late: int
    """Events older than all that the history keeps, so left out."""
    refused: int
    """Events of unknown users, refused because the store already knows `serve.limits.new_users` from events alone."""
    users: int
    """Distinct users."""


class ErrorResponse(Struct, frozen=True, kw_only=True):
    """Why a request was refused."""

    error: str


_recommend_decoder = msgspec.json.Decoder(RecommendRequest)
_events_decoder = msgspec.json.Decoder(EventsRequest)
_event_decoder = msgspec.json.Decoder(EventRequest)
_keys_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_recommend(body: bytes, limits: LimitsConfig) -> RecommendRequest:
    """Parse a body of POST /recommend.

    Raises:
        Refusal: it is not JSON (400), or not what the schema and the limits allow (422).
    """
    request = decode(body, _recommend_decoder)
    if request.user_id is UNSET and request.history is UNSET:
        raise Refusal(_INVALID, "neither user_id nor history: send one of them")
    require_at_most(request.k, limits.k, "k")
    _require_short(request.history, limits.history, "history")
    _require_short(request.filters.allow, limits.filter_ids, "filters.allow")
    _require_short(request.filters.deny, limits.filter_ids, "filters.deny")
    _require_short(request.filters.categories, limits.filter_ids, "filters.categories")
    _require_short(request.filters.deny_categories, limits.filter_ids, "filters.deny_categories")
    return request


def read_events(body: bytes, limits: LimitsConfig) -> list[Event]:
    """Parse a body of POST /events.

    Raises:
        Refusal: it is not JSON (400), or not what the schema and the limits allow (422).
    """
    request = decode(body, _events_decoder)
    _require_short(request.events, limits.events, "events")
    now = datetime.now(UTC)
    return [_event(event, now) for event in request.events]


def read_message(body: bytes, received: datetime) -> list[Event]:
    """Parse a message of a stream: an event, or several as POST /events takes them.

    An event without a time gets `received`, the time when the broker took the message: the same at every read.

    Raises:
        Refusal: it is neither; the status has no meaning here.
    """
    several = "events" in decode(body, _keys_decoder)
    events = decode(body, _events_decoder).events if several else [decode(body, _event_decoder)]
    return [_event(event, received) for event in events]


def decode(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Parse JSON of a known type.

    Raises:
        Refusal: it is not JSON (400) or has another shape (422).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(_INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(_NOT_JSON, f"not JSON: {error}") from error


def require_at_most(value: int, most: int, name: str) -> None:
    """Check a limit.

    Raises:
        Refusal: `value` exceeds the limit.
    """
    if value > most:
        raise Refusal(_INVALID, f"{name} is {value}: ask for at most {most}")


def _require_short(values: Sequence[object] | UnsetType, most: int, name: str) -> None:
    if values is not UNSET and len(values) > most:
        raise Refusal(_INVALID, f"{name} has {len(values)} entries: send at most {most}")


def _event(event: EventRequest, received: datetime) -> Event:
    read = Event(
        user_id=normal_id(str(event.user_id)),
        item_id=normal_id(str(event.item_id)),
        timestamp=received if event.timestamp is UNSET else _moment(event.timestamp),
        event_id=None if event.event_id is UNSET else normal_id(str(event.event_id)),
        answer_id=None if event.answer_id is UNSET else event.answer_id,
        kind=None if event.kind is UNSET else normal_id(event.kind),
    )
    try:
        require_valid(read, now=datetime.now(UTC))
    except UserError as error:
        raise Refusal(_INVALID, str(error)) from error
    return read


def _moment(value: str | float) -> datetime:
    """Read a time as in a file of events; text must name its zone, because clients live in many."""
    try:
        moment = read_moment(value)
    except UserError as error:
        raise Refusal(_INVALID, str(error)) from error
    if isinstance(value, str) and not _ZONE.search(value):
        raise Refusal(_INVALID, f"timestamp {value[:80]!r} names no zone: end it with Z or an offset, or send seconds")
    return moment
