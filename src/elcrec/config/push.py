"""The section `push`: the gate, registration and publishing."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import FAULT_STATUSES, Name, Positive, Section, Share


class CounterfactualConfig(Section, frozen=True, kw_only=True):
    """The counterfactual estimate of the challenger on the champion's log."""

    attributed: str | None = None
    """Output folder of `elcrec exposures`; `None` makes no estimate. The champion must have explored
    (`evaluate.rules.exploration`), and `sequences.split` must be temporal: answers from before its test part are left
    out, because the challenger may have learned from them."""
    condition: Literal["none", "not_worse", "better"] = "none"
    """Condition on the doubly robust difference in clicks per shown item. `not_worse`: its interval must not be below
    0. `better`: it must be above 0, so a model without such evidence is refused."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the intervals."""
    answers: Positive = 20_000
    """Largest number of replayed answers, chosen evenly over time; each takes some milliseconds."""
    least_effective: Positive = 500
    """Smallest effective number of shown items (Kish); with fewer, nothing is concluded."""
    least_reached: Share = 0.8
    """Smallest share of the challenger's items that the champion could have shown; with less, nothing is concluded. The
    rest counts as never clicked, which would be unfair to a challenger that is only different."""

    def __post_init__(self) -> None:
        """Check that a condition comes with a log."""
        if self.condition != "none" and self.attributed is None:
            raise ValueError(f"condition {self.condition!r} needs a log: set attributed")


class GateConfig(Section, frozen=True, kw_only=True):
    """When a model may be pushed."""

    floors: dict[str, float] = {}
    """Floors: smallest values of test metrics, by their names in metrics.json."""
    metric: str = "ndcg@20"
    """Metric for the comparison of challenger and champion on the same split."""
    max_regression: Share = 0.01
    """Largest accepted relative loss against the champion."""
    counterfactual: CounterfactualConfig = CounterfactualConfig()
    """The challenger on the champion's log."""

    def __post_init__(self) -> None:
        """Refuse a floor that no model could reach, before training."""
        for name, floor in self.floors.items():
            if re.fullmatch(r"(hr|ndcg|mrr)@\d+", name) and not floor <= 1:
                raise ValueError(f"floors: {name} is 1 at most, so no model could reach {floor}")


class PushConfig(Section, frozen=True, kw_only=True):
    """Registration and publishing."""

    model_name: Name = "elcrec"
    """Name of the registered model."""
    feature_service: Name = "elcrec_v1"
    """The versioned Feast service that serves the model; the bundle names it."""
    idle_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Users whose newest event, including live events, is more than this many days before the newest event of the log
    are not published, and are removed from the online store (real times only); 0 keeps all users."""
    gate: GateConfig = GateConfig()
    """The conditions of a push."""
    alias: Literal["champion", "challenger"] = "champion"
    """Whether an accepted model becomes the champion or the challenger (docs/experiments.md). If no version serves yet,
    it becomes the champion."""
    refused_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec push` and `elcrec run` if the gate refuses the model; 0 treats a refusal as success.
    Statuses with other meanings (1, 2, 130, 143) are not allowed."""

    def __post_init__(self) -> None:
        """Check that the status differs from those of faults."""
        if self.refused_status in FAULT_STATUSES:
            raise ValueError(f"refused_status {self.refused_status} is that of a fault; take another, such as 3")
