"""The section `push`: the gate, registration and publishing."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import FAULT_STATUSES, Name, Positive, Section, Share


class CounterfactualConfig(Section, frozen=True, kw_only=True):
    """What the challenger would have earned in the champion's place, estimated on the champion's log."""

    attributed: str | None = None
    """Folder that `elcrec exposures` wrote; `None` estimates nothing. The champion must have explored
    (`evaluate.rules.exploration`), and `sequences.split` must be temporal: answers from before its test part are left
    out, as the challenger may have learned from them."""
    condition: Literal["none", "not_worse", "better"] = "none"
    """What is asked of the doubly robust difference in clicks per shown item. `not_worse`: its interval must not lie
    below 0. `better`: it must lie above 0, so that a model without such evidence is refused."""
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """Level of the intervals."""
    answers: Positive = 20_000
    """Most answers that are replayed, evenly chosen over time; each takes some milliseconds."""
    least_effective: Positive = 500
    """With a smaller effective number of shown items (Kish) nothing is concluded."""
    least_reached: Share = 0.8
    """Nor is anything concluded where the champion could have shown less than this share of what the challenger shows:
    the rest counts as never clicked, which would speak against a challenger that is only different."""

    def __post_init__(self) -> None:
        """Check that there is something to judge by."""
        if self.condition != "none" and self.attributed is None:
            raise ValueError(f"condition {self.condition!r} asks for a log: set attributed")


class GateConfig(Section, frozen=True, kw_only=True):
    """When a model may be pushed."""

    floors: dict[str, float] = {}
    """Least value of test metrics by name, as they stand in metrics.json."""
    metric: str = "ndcg@20"
    """The metric in which the challenger is compared with the champion on the same split."""
    max_regression: Share = 0.01
    """Relative loss against the champion that is still accepted."""
    counterfactual: CounterfactualConfig = CounterfactualConfig()
    """The challenger on the champion's log."""

    def __post_init__(self) -> None:
        """Refuse a floor that no model could reach, before one is trained for it."""
        for name, floor in self.floors.items():
            if re.fullmatch(r"(hr|ndcg|mrr)@\d+", name) and not floor <= 1:
                raise ValueError(f"floors: {name} is 1 at most, so no model could reach {floor}")


class PushConfig(Section, frozen=True, kw_only=True):
    """Registration and publishing."""

    model_name: Name = "elcrec"
    """Registered model's name."""
    feature_service: Name = "elcrec_v1"
    """The versioned Feast service that serves the model; the bundle names it."""
    idle_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """A user whose newest event, live events included, is more than this many days before the newest event of the log
    is not published, and leaves the online store (real times only); 0 keeps all users."""
    gate: GateConfig = GateConfig()
    """The conditions of a push."""
    alias: Literal["champion", "challenger"] = "champion"
    """What an accepted model becomes: the version that serves, or one that is tried beside it (docs/experiments.md).
    Where no version serves yet it becomes the champion."""
    refused_status: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit status of `elcrec push` and `elcrec run` where the gate refuses the model; 0: a refusal is an answer as good
    as any. A status that says something else (1, 2, 130, 143) is not taken."""

    def __post_init__(self) -> None:
        """Check that the status is told from those of faults."""
        if self.refused_status in FAULT_STATUSES:
            raise ValueError(f"refused_status {self.refused_status} is that of a fault; take another, such as 3")
