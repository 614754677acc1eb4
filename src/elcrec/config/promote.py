"""The section `promote`: the challenger against the champion."""

from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from elcrec.config.section import Positive, Section

Rate = Literal["ctr", "conversion", "hit_rate"]
"""A rate of users' responses: clicks per shown item, answers with a click, next events of shown items."""


class PromoteConfig(Section, frozen=True, kw_only=True):
    """Deciding between challenger and champion by the behaviour of their users."""

    metric: Rate = "ctr"
    """The rate that the challenger must raise."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Probability of ever finding a difference between two equally good versions, however often you look."""
    expected_lift: Annotated[float, Meta(gt=0, le=1)] = 0.05
    """Relative lift for which the test is tuned; any other is found too, somewhat later."""
    min_days: Positive = 7
    """Number of whole days before anything is decided; use whole weeks if days of the week differ."""
    min_users: Positive = 1000
    """Smallest number of users in each arm before anything is decided."""
    guards: dict[Rate, Annotated[float, Meta(gt=0, lt=1)]] = msgspec.field(default_factory=lambda: {"conversion": 0.05})
    """Guards: rates that must not fall, each with the relative fall that is too large. A promotion requires that such a
    fall is excluded; if it is certain, the challenger is dropped."""
    since: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """First day that counts, such as "2026-03-01". If the share of users was changed, the test must start again on the
    day after. `None`: the first whole day on which both versions were shown."""
    page: bool = True
    """Whether to write a page (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that the day exists."""
        if self.since is not None:
            date.fromisoformat(self.since)
