"""The section `promote`: the challenger against the champion."""

from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from elcrec.config.section import Positive, Section

Rate = Literal["ctr", "conversion", "hit_rate"]
"""A rate of what users did: clicks of shown items, answers with a click, next events of shown items."""


class PromoteConfig(Section, frozen=True, kw_only=True):
    """Deciding between the challenger and the champion by what their users did."""

    metric: Rate = "ctr"
    """The rate that the challenger has to raise."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Chance that a difference is ever found between two versions which are equally good, however often one looks."""
    expected_lift: Annotated[float, Meta(gt=0, le=1)] = 0.05
    """Relative lift that the test is tuned for; any other is found too, somewhat later."""
    min_days: Positive = 7
    """Whole days before anything is decided; whole weeks, where days of the week differ."""
    min_users: Positive = 1000
    """Users that each arm must have before anything is decided."""
    guards: dict[Rate, Annotated[float, Meta(gt=0, lt=1)]] = msgspec.field(default_factory=lambda: {"conversion": 0.05})
    """Rates that must not fall, and the relative fall that would be too much: a promotion needs it excluded, and a
    challenger of which it is certain is dropped."""
    since: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """First day that counts, such as "2026-03-01"; for a test whose share of users was changed, which starts anew with
    the day after. `None`: the first whole day on which both versions were shown."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that the day exists."""
        if self.since is not None:
            date.fromisoformat(self.since)
