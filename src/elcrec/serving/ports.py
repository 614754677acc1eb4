"""Interfaces to the outside world that serving needs; the adapters implement them."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from elcrec.errors import UserError

PUSH_FIRST = "run `elcrec push` first, or on a cluster the pipeline training"
"""Advice if nothing has been pushed yet."""
CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases of versions in the registry: the one that serves, and the one that is tried beside it."""

HistorySource = Literal["store", "request", "none"]
"""Source of the history behind an answer."""


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        bundle: the bundle folder on this machine; not verified yet.
    """

    name: str
    version: str
    bundle: Path


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained.

    Attributes:
        parameters: dotted names and values.
        epochs: figures of each epoch by name; `epoch` is its number. Empty for imported weights.
    """

    parameters: Mapping[str, str]
    epochs: Sequence[Mapping[str, float]]


class ModelRegistry(Protocol):
    """Versions of named models; one may be the champion, and another the challenger."""

    def champion(self, name: str) -> RegisteredModel | None:
        """Return the version that serves, `None` before the first push."""

    def challenger(self, name: str) -> RegisteredModel | None:
        """Return the version that is tried beside the champion, `None` where there is none."""

    def version(self, name: str, version: str) -> RegisteredModel | None:
        """Return one version, `None` if it does not exist."""

    def versions(self, name: str) -> list[str]:
        """Return all versions that may serve, the newest first."""

    def register(
        self,
        name: str,
        bundle: Path,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: TrainingRecord | None = None,
    ) -> str:
        """Store a bundle and return its version; the same bundle (by its digest) has one version only.

        `training` is shown with it if the registry can.
        """

    def set_champion(self, name: str, version: str) -> None:
        """Make `version` the champion; if it was the challenger, it no longer is."""

    def set_challenger(self, name: str, version: str) -> None:
        """Make `version` the challenger."""

    def reject(self, name: str, version: str, reason: str = "") -> None:
        """Mark a version as rejected: no push makes it champion, and it is no longer the challenger."""

    def pardon(self, name: str, version: str) -> None:
        """Remove the mark of `reject`, if there is one."""

    def rejected(self, name: str, digest: str) -> str | None:
        """Return the version of a rejected bundle; `None` if the bundle was not rejected."""


@dataclass(frozen=True, kw_only=True)
class FeatureTables:
    """The data that a push publishes. If there are many users, a part is several tables, iterated more than once.

    Attributes:
        histories: `user_id`, `item_ids`, `event_times`, `event_timestamp` as in histories.parquet, `event_ids` if the
            log has them, and `seen_items`, the items before the history.
        earlier: histories as they were after each earlier event, in tables of the same columns. All rows of a user are
            in one table, in order. They are for training and never served. Iterated more than once.
        model_outputs: `user_id`, `intent` int64, `vector` list<float32>, `bundle` (digest); `None` keeps the present
            ones.
        item_statistics: `item_id`, `count`, `total`; `None` keeps the present ones.
        real_times: whether the times are real, so that two logs can be compared by where they end.
    """

    histories: pa.Table | Iterable[pa.Table]
    earlier: Iterable[pa.Table]
    model_outputs: pa.Table | Iterable[pa.Table] | None
    item_statistics: pa.Table | None
    real_times: bool = False


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """The features of one user in the online store.

    Attributes:
        item_ids: recent history as raw ids, oldest first.
        event_times: time of each item, UTC.
        intent: published nearest intent centre; `None` if there is none, or it is older than its view's TTL.
        vector: published state, [D]; empty if there is none, or it is older than its view's TTL.
        bundle: digest of the bundle that computed intent and vector; `None` if they are missing.
    """

    item_ids: list[str]
    event_times: list[datetime]
    intent: int | None
    vector: list[float]
    bundle: str | None


@dataclass(frozen=True, kw_only=True)
class UserHistory:
    """The features of one user that a ranking needs.

    Attributes:
        item_ids: recent history as raw ids, oldest first; empty for a user with dislikes only.
        updated: time of the newest event; `None` if there is none.
        seen: seen items and dislikes; a disliked item is there twice, as it is and after DISLIKED.
    """

    item_ids: list[str]
    updated: datetime | None
    seen: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A live interaction.

    Attributes:
        timestamp: when it happened, with a time zone.
        event_id: the sender's id. A second event of the same user and id is a duplicate, whatever its other fields.
            Without an id, a duplicate is an event of the same user, item and timestamp.
        answer_id: the server's answer that showed the item, if the sender knows it.
        kind: kind of the event, as in the log's `validate.kind_column`.
    """

    user_id: str
    item_id: str
    timestamp: datetime
    event_id: str | None = None
    answer_id: str | None = None
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class PushOutcome:
    """The outcome of a batch of events; the first four numbers add up to its size.

    Attributes:
        accepted: now part of a history.
        duplicates: already there, or twice in the batch.
        late: older than everything in the window of the user's history, so not kept.
        refused: events of unknown users beyond the number whom the store may know from events alone, and events from
            before their user was forgotten.
        users: distinct users.
    """

    accepted: int
    duplicates: int
    late: int
    refused: int
    users: int


LOG_SCHEMA = pa.schema(
    [
        pa.field("logged", pa.int64()),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("event_id", pa.string()),
        pa.field("answer_id", pa.string()),
        pa.field("kind", pa.string()),
    ]
)
"""Columns of the event log. `logged` is when an event arrived, in microseconds since 1970; `event_id` is the sender's,
or its substitute (`histories.event_key`); `answer_id` and `kind` are null if the sender named none."""


class EventLog(Protocol):
    """The log of every live event that was accepted."""

    def append(self, events: Sequence[Event]) -> None:
        """Add events; once this returns, a process that is killed loses none of them.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the log in columns of LOG_SCHEMA, part by part; an event may come twice.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def forget(self, user_id: str) -> int:
        """Erase a user's events; return how many there were.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def trim(self, before: datetime) -> int:
        """Remove the events that arrived before a moment; return how many.

        Raises:
            StoreUnavailable: the log does not answer.
        """


class StoreUnavailable(UserError):  # noqa: N818 - the name that readers catch
    """The online store does not answer; the same call succeeds once it is back."""


class StoreReplaced(StoreUnavailable):
    """The online store is not the one that was published: it was emptied, replaced, or published only in part."""


class ServiceCheck(Protocol):
    """Checks whether a store serves the features that a version reads."""

    def check(self, service: str, schema: str | None = None) -> None:
        """Make sure that the store has `service`, and that the digest of its schema is `schema`.

        Raises:
            StoreUnavailable: the registry does not answer.
            UserError: the service is missing or differs; with `None` for `schema` only the service is checked.
        """


class FeatureStore(ServiceCheck, Protocol):
    """Online features: a push writes them, events keep them fresh, and every request reads them."""

    @property
    def event_log(self) -> EventLog:
        """The log of the events that `push_events` took."""

    def publish(self, tables: FeatureTables, *, service: str, idle_days: int = 0) -> dict[str, int]:
        """Publish `tables` to the online store; return the number of rows of each view.

        Live events that `tables` lack stay in the histories. A publication that was killed resumes where it stopped.

        Args:
            tables: what is published.
            service: the service that reads it.
            idle_days: users whose newest event is more than this many days before the newest of `tables` are not
                published, and leave the online store, whichever publication or event they came from; 0 keeps all.

        Raises:
            UserError: `service` is not defined, or the values read back differ from those published.
        """

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """Return the features of each user, in the given order; `None` for users without a history.

        Raises:
            StoreUnavailable: the online store does not answer; raised within a fraction of a second.
            UserError: `service` was never published to this store.
        """

    def histories(self, user_ids: Sequence[str], *, service: str) -> list[UserHistory | None]:
        """Return only the history of each user, in the given order: faster than `users`.

        Raises:
            StoreUnavailable: the online store does not answer; raised within a fraction of a second.
            UserError: `service` was never published to this store.
        """

    def push_events(
        self,
        events: Sequence[Event],
        *,
        new_users: int | None = None,
        knows: Container[str] | None = None,
        dislikes: Container[str] = (),
        logged: bool = False,
    ) -> PushOutcome:
        """Add live events to their users' histories; `users` returns them from then on, and `event_log` has them.

        Every event is checked before the first is written. Safe to repeat, and safe with several writers at once.

        Args:
            events: in any order.
            new_users: largest number of users whom the store may know from events alone; `None` for no limit.
            knows: items of the model that serves, which other items must not push out of a history; `None` takes those
                of the last publication, if its files are on this machine.
            dislikes: kinds of events that express dislike: their items do not enter a history and are not recommended.
            logged: whether the events come from the event log, and need not be written to it again.

        Raises:
            StoreUnavailable: the online store does not answer; some users may have been written, so push again.
            UserError: an event is not valid, or nothing was published to this store yet.
        """

    def forget(self, user_id: str) -> dict[str, int]:
        """Erase a user from the online store, the offline files and the event log; return what was found, by place.

        Raises:
            StoreUnavailable: the online store or the log does not answer, or another process publishes or reads too
                long.
        """

    def schema(self, service: str) -> str:
        """Return the digest of the schema of `service` as the repository defines it, published or not.

        Raises:
            UserError: the repository does not define it.
        """
