"""What serving needs of the outside world; the adapters provide it."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from elcrec.errors import UserError

PUSH_FIRST = "run `elcrec push` first, or on a cluster the pipeline training"
"""What to do where nothing has been pushed yet."""
CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases of versions in the registry: the one that serves, and the one that is tried beside it."""

HistorySource = Literal["store", "request", "none"]
"""Where the history came from that an answer was made of."""


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
        epochs: figures of each, by name; `epoch` is its number. None for weights that were imported.
    """

    parameters: Mapping[str, str]
    epochs: Sequence[Mapping[str, float]]


class ModelRegistry(Protocol):
    """Versions of named models, one of which may be the champion, and another the challenger beside it."""

    def champion(self, name: str) -> RegisteredModel | None:
        """Return the version that serves, `None` before the first push."""

    def challenger(self, name: str) -> RegisteredModel | None:
        """Return the version that is tried beside the champion, `None` where there is none."""

    def version(self, name: str, version: str) -> RegisteredModel | None:
        """Return one version, `None` where there is no such."""

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

        `training` is shown beside it where the registry can.
        """

    def set_champion(self, name: str, version: str) -> None:
        """Make `version` the one that serves; a challenger that it was it is no longer."""

    def set_challenger(self, name: str, version: str) -> None:
        """Make `version` the one that is tried beside the champion."""

    def reject(self, name: str, version: str, reason: str = "") -> None:
        """Note that a version is not to serve again, and why; no push makes it champion, and it is no challenger."""

    def pardon(self, name: str, version: str) -> None:
        """Take back what `reject` noted, if it did."""

    def rejected(self, name: str, digest: str) -> str | None:
        """Return the version of a bundle that was rejected; `None` for one that was not."""


@dataclass(frozen=True, kw_only=True)
class FeatureTables:
    """What a push publishes: a table each; where users are many, tables one after the other, iterated more than once.

    Attributes:
        histories: `user_id`, `item_ids`, `event_times`, `event_timestamp`, as in histories.parquet, where the log has
            them `event_ids`, and `seen_items`, what was before all that.
        earlier: histories as they stood after each event before, in tables of the same columns, a user in one table
            alone, in order; for training, never served. Iterated more than once.
        model_outputs: `user_id`, `intent` int64, `vector` list<float32>, `bundle` (digest); `None` leaves what is
            there.
        item_statistics: `item_id`, `count`, `total`; `None` leaves what is there.
        real_times: whether the times are real ones, so that of two logs it can be said which ends later.
    """

    histories: pa.Table | Iterable[pa.Table]
    earlier: Iterable[pa.Table]
    model_outputs: pa.Table | Iterable[pa.Table] | None
    item_statistics: pa.Table | None
    real_times: bool = False


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """What the online store knows of one user.

    Attributes:
        item_ids: recent history as raw ids, oldest first.
        event_times: time of each item, UTC.
        intent: published nearest intent centre; `None` where there is none, or it is older than its view's TTL.
        vector: published state, [D]; empty where there is none, or it is older than its view's TTL.
        bundle: digest of the bundle that computed intent and vector; `None` where they are.
    """

    item_ids: list[str]
    event_times: list[datetime]
    intent: int | None
    vector: list[float]
    bundle: str | None


@dataclass(frozen=True, kw_only=True)
class UserHistory:
    """What a ranking needs of one user.

    Attributes:
        item_ids: recent history as raw ids, oldest first; empty of a user who has only disliked something.
        updated: time of the newest event; `None` without one.
        seen: items met before all that, which are not to be recommended either, and dislikes: an item, and the same
            after DISLIKED.
    """

    item_ids: list[str]
    updated: datetime | None
    seen: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A live interaction.

    Attributes:
        timestamp: when it happened, with a time zone.
        event_id: what the sender calls it; a second event of the same user and id is a duplicate, whatever else
            it says. Without one, a duplicate is an event of the same user, item and timestamp.
        answer_id: the server's answer that showed the item, where the sender knows it.
        kind: what kind of event it is, as in the log's `validate.kind_column`.
    """

    user_id: str
    item_id: str
    timestamp: datetime
    event_id: str | None = None
    answer_id: str | None = None
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class PushOutcome:
    """What became of a batch of events; the first four add up to its size.

    Attributes:
        accepted: now part of a history.
        duplicates: already there, or twice in the batch.
        late: older than all that the window of their user's history holds, so not kept.
        refused: of users whom the store does not know, beyond those whom it may know from events alone; and from before
            their user was forgotten.
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
"""Columns of the event log. `logged` is when an event came in, microseconds since 1970; `event_id` is the sender's, or
what stands in for it (`histories.event_key`); `answer_id` and `kind` are null where the sender named none."""


class EventLog(Protocol):
    """Every live event that was accepted, from its first to its last user."""

    def append(self, events: Sequence[Event]) -> None:
        """Add events; once this returns, a process that is killed loses none of them.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the log in columns of LOG_SCHEMA, a part at a time; an event may come twice.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def forget(self, user_id: str) -> int:
        """Erase a user's events; return how many there were.

        Raises:
            StoreUnavailable: the log does not answer.
        """

    def trim(self, before: datetime) -> int:
        """Remove the events that came in before a moment; return how many.

        Raises:
            StoreUnavailable: the log does not answer.
        """


class StoreUnavailable(UserError):  # noqa: N818 - the name that readers catch
    """The online store does not answer; the same call succeeds once it is back."""


class StoreReplaced(StoreUnavailable):
    """The online store is not the one that was published: it was emptied, replaced, or published only in part."""


class ServiceCheck(Protocol):
    """Says whether a store serves what a version reads."""

    def check(self, service: str, schema: str | None = None) -> None:
        """Make sure that the store has `service`, and that its schema is the one with the digest `schema`.

        Raises:
            StoreUnavailable: the registry does not answer.
            UserError: the service is missing or differs; `None` for `schema` asks for the service alone.
        """


class FeatureStore(ServiceCheck, Protocol):
    """Online features, written by a push, kept fresh by events and read by every request."""

    @property
    def event_log(self) -> EventLog:
        """The log of the events that `push_events` took."""

    def publish(self, tables: FeatureTables, *, service: str, idle_days: int = 0) -> dict[str, int]:
        """Bring the online store to `tables`; return the number of rows of each view.

        Live events that `tables` lack stay in the histories. A publication that was killed goes on where it was.

        Args:
            tables: what is published.
            service: the service that reads it.
            idle_days: users whose newest event is more than so many days before the newest of `tables` are not
                published, and leave the online store, whichever publication or event they came from; 0 keeps all.

        Raises:
            UserError: `service` is not defined, or a read-back finds other values than were published.
        """

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """Return each user's features in the order asked, `None` for users without a history.

        Raises:
            StoreUnavailable: the online store does not answer; raised within a fraction of a second.
            UserError: `service` was never published to this store.
        """

    def histories(self, user_ids: Sequence[str], *, service: str) -> list[UserHistory | None]:
        """Return each user's history in the order asked: what `users` does, and as soon as can be.

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

        Every event is checked before the first is written. Safe to repeat, and from many writers at once.

        Args:
            events: in any order.
            new_users: most users whom the store may know from events alone; `None` for any number.
            knows: items of the model that serves, which others must not push out of a history; `None`: those of the
                last publication, where its files are here.
            dislikes: kinds of events that say no: their items are no part of a history and are not recommended.
            logged: whether they come from the event log, and need not be written there again.

        Raises:
            StoreUnavailable: the online store does not answer; some users may have been written, so push again.
            UserError: an event is not valid, or nothing was published to this store yet.
        """

    def forget(self, user_id: str) -> dict[str, int]:
        """Erase a user from the online store, the offline files and the event log; return what was found, by place.

        Raises:
            StoreUnavailable: the online store or the log does not answer, or somebody publishes or reads for too long.
        """

    def schema(self, service: str) -> str:
        """Return the digest of the schema of `service` as the repository defines it, published or not.

        Raises:
            UserError: the repository does not define it.
        """
