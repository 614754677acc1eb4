"""The section `monitor`: judging what is served, day by day."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import FAULT_STATUSES, NonNegative, Positive, Section

Check = Literal[
    "ctr", "conversion", "hit_rate", "cold", "overlap", "intent", "mix", "history", "calibration", "staleness"
]
"""What the monitor looks at (docs/monitoring.md)."""


class MonitorConfig(Section, frozen=True, kw_only=True):
    """Judging what is served, day by day, by the first days of the same bundle."""

    reference_days: Annotated[int, Meta(ge=3, le=90)] = 14
    """The first days of a bundle that others are compared with; whole weeks, where days of the week differ. Fewer days
    make every check less sensitive."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Chance of any alarm in 30 days in which nothing changes, over all checks together. How far from the reference a
    day must be follows from it."""
    bad_days: Annotated[int, Meta(ge=1, le=7)] = 2
    """A check raises an alarm when so many of its last `of_days` days are bad."""
    of_days: Annotated[int, Meta(ge=1, le=7)] = 3
    """How many of its last days a check looks back on."""
    min_users: Annotated[int, Meta(ge=2)] = 100
    """A day on which fewer users were answered is not judged, and is no reference day."""
    stale_days: Positive | None = 30
    """Age of a bundle in days from which it is stale; `None`: never. It is known only where the store is given."""
    retrain_on: tuple[Check, ...] = ("ctr", "conversion", "hit_rate", "intent", "mix", "calibration", "staleness")
    """Checks whose alarm asks for retraining; that of any other is a warning."""
    cool_down_days: NonNegative = 7
    """Days after a request to retrain in which there is no other."""
    retrain_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec monitor` where it requests retraining; 0: a request is an answer as good as any. A status
    that says something else (1, 2, 130, 143) is not taken."""
    page: bool = True
    """Whether a page is written (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that an alarm is possible, and that the status is told from those of faults."""
        if self.bad_days > self.of_days:
            raise ValueError(f"bad_days {self.bad_days} is more than of_days {self.of_days}: no alarm is possible")
        if self.retrain_status in FAULT_STATUSES:
            raise ValueError(f"retrain_status {self.retrain_status} is that of a fault; take another, such as 3")
