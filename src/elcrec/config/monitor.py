"""The section `monitor`: judging what is served, day by day."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import FAULT_STATUSES, NonNegative, Positive, Section

Check = Literal[
    "ctr", "conversion", "hit_rate", "cold", "overlap", "intent", "mix", "history", "calibration", "staleness"
]
"""The monitor's checks (docs/monitoring.md)."""


class MonitorConfig(Section, frozen=True, kw_only=True):
    """The monitor: judges what is served, day by day, by the reference days of the same bundle."""

    reference_days: Annotated[int, Meta(ge=3, le=90)] = 14
    """Number of reference days: first days of a bundle with which later ones are compared. Use whole weeks if days of
    the week differ. Fewer days make every check less sensitive."""
    false_alarms: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Probability of any alarm in 30 days in which nothing changes, over all checks together. The limits of the checks
    follow from it."""
    bad_days: Annotated[int, Meta(ge=1, le=7)] = 2
    """Number of bad days among the last `of_days` days at which a check raises an alarm."""
    of_days: Annotated[int, Meta(ge=1, le=7)] = 3
    """Number of last days that a check considers."""
    min_users: Annotated[int, Meta(ge=2)] = 100
    """Smallest number of users on a day; a day with fewer is not judged and is not a reference day."""
    stale_days: Positive | None = 30
    """Age of a bundle in days from which it is stale; `None`: never. The age is known only if the store is given."""
    retrain_on: tuple[Check, ...] = ("ctr", "conversion", "hit_rate", "intent", "mix", "calibration", "staleness")
    """Checks whose alarm requests retraining; the alarm of any other is a warning."""
    cool_down_days: NonNegative = 7
    """Number of days after a request to retrain in which no other is made."""
    retrain_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec monitor` if it requests retraining; 0 treats a request as success. Statuses with other
    meanings (1, 2, 130, 143) are not allowed."""
    page: bool = True
    """Whether to write a page (with the extra `report`)."""

    def __post_init__(self) -> None:
        """Check that an alarm is possible, and that the status differs from those of faults."""
        if self.bad_days > self.of_days:
            raise ValueError(f"bad_days {self.bad_days} is more than of_days {self.of_days}: no alarm is possible")
        if self.retrain_status in FAULT_STATUSES:
            raise ValueError(f"retrain_status {self.retrain_status} is that of a fault; take another, such as 3")
