"""What serving needs of the outside world; the adapters provide it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from elcrec.errors import UserError


class StoreUnavailable(UserError):  # noqa: N818 - a state of the world, not a mistake
    """The online store does not answer; asking again later may help."""


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        bundle: the bundle folder on this machine; not verified yet.
    """

    name: str
    version: str
    bundle: Path


class ModelRegistry(Protocol):
    """Versions of named models, one of which may be the champion."""

    def champion(self, name: str) -> RegisteredModel | None:
        """Return the version that serves, `None` before the first push."""

    def register(self, name: str, bundle: Path, metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
        """Store a bundle and return its version; the same bundle (by its digest) has one version only."""

    def set_champion(self, name: str, version: str) -> None:
        """Make `version` the one that serves."""


@dataclass(frozen=True, kw_only=True)
class FeatureTables:
    """What a push publishes.

    Attributes:
        histories: `user_id`, `item_ids`, `event_times`, `event_timestamp`, as in histories.parquet.
        model_outputs: `user_id`, `intent` int64, `vector` list<float32>, `bundle` (digest).
        item_statistics: `item_id`, `count`, `total`.
    """

    histories: pa.Table
    model_outputs: pa.Table
    item_statistics: pa.Table


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """What the online store knows of one user.

    Attributes:
        item_ids: recent history as raw ids, oldest first.
        event_times: time of each item, UTC.
        intent: published nearest intent centre; `None` where there is none.
        vector: published state, [D]; empty where there is none.
        bundle: digest of the bundle that computed intent and vector.
        updated: when the history was written; `None` where the store does not say.
    """

    item_ids: list[str]
    event_times: list[datetime]
    intent: int | None
    vector: list[float]
    bundle: str | None
    updated: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A user met an item.

    Attributes:
        timestamp: when, UTC.
        event_id: the sender's name for it; one that was seen before is a duplicate.
    """

    user_id: str
    item_id: str
    timestamp: datetime
    event_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class PushOutcome:
    """What became of some events.

    Attributes:
        accepted: now part of a history.
        duplicates: were there already.
        late: of the accepted, those that came after a newer event of the same user.
        users: how many histories changed.
    """

    accepted: int
    duplicates: int
    late: int
    users: int


class FeatureStore(Protocol):
    """Online features, written by a push and read by every request."""

    def publish(self, tables: FeatureTables, *, service: str) -> dict[str, int]:
        """Bring the online store to `tables`; return the number of rows of each view.

        Raises:
            UserError: `service` is not defined, or a read-back finds other values than were published.
        """

    def users(self, user_ids: Sequence[str], *, service: str) -> list[UserFeatures | None]:
        """Return each user's features in the order asked, `None` for users without a history.

        Raises:
            StoreUnavailable: the online store does not answer.
        """

    def push_events(self, events: Sequence[Event]) -> PushOutcome:
        """Append events to their users' histories, in time order, each event once.

        Raises:
            StoreUnavailable: the online store does not answer.
        """

    def check(self, service: str) -> None:
        """Compare a feature service with its definition.

        Raises:
            UserError: it is missing from the store, or differs from what this code defines.
        """
