"""The section `sequences`: how interactions become sequences and a split."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, PositiveFloat, Section, Weight


class KindsConfig(Section, frozen=True, kw_only=True):
    """What the kinds of events mean, which `validate.kind_column` tells."""

    weights: dict[str, Weight] = {}
    """Weight of a kind's events as targets of L_next; a kind without one weighs 1."""
    targets: tuple[str, ...] = ()
    """Kinds whose events the validation and test targets are, such as buy; empty: any."""
    dislikes: tuple[str, ...] = ()
    """Kinds that say no: such an event is no interaction, and its item is never recommended to this user."""

    @property
    def named(self) -> list[str]:
        """All kinds that something is said of."""
        return sorted({*self.weights, *self.targets, *self.dislikes})

    def __post_init__(self) -> None:
        """Check that no kind says yes and no."""
        both = sorted({*self.weights, *self.targets} & {*self.dislikes})
        if both:
            raise ValueError(f"kinds: {both[0]!r} is a dislike, so it is no target and has no weight")


class SequencesConfig(Section, frozen=True, kw_only=True):
    """How interactions become sequences and a split."""

    k_core: NonNegative = 0
    """Users and items with fewer interactions are dropped, again until none is left; 0 keeps all."""
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    """`leave_one_out`: the last item is the test target, the one before it the validation target.
    `temporal`: two instants cut all histories; a user's first item after a cut is their target."""
    valid_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions between the two cuts."""
    test_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions after the second cut."""
    repeats: Literal["exclude", "allow"] = "exclude"
    """Whether an item that a user has met may be their next one. `exclude`: it is never recommended, and a target that
    was met before counts as missed. `allow`: it competes like any other. Training's validation, the evaluation, the
    gate, the server and `recommend-all` follow; the bundle carries it."""
    kinds: KindsConfig = KindsConfig()
    """What kinds of events mean."""
    consecutive: Literal["keep", "merge"] = "keep"
    """`merge`: of events of a user that follow each other with one item (and one kind) only the first counts, also in
    the histories that a server reads."""
    most_events: NonNegative = 0
    """Users with more events are left out, before `k_core` is asked; 0 keeps all."""
    session_gap: PositiveFloat | None = None
    """Minutes without an event after which a session ends; each session is a sequence of its own (real times only). A
    user's newest session keeps their id, is the one that is served, and takes their live events. `None`: all events of
    a user are one sequence. Where the log has ids of sessions, name their column in `validate.user_column` instead."""
    ties: Literal["log", "column", "drawn"] = "log"
    """Order of a user's events at the same time: as in the log, by `validate.tie_column`, or drawn. A log that somebody
    sorted by item tells the model what comes next."""
    ties_seed: NonNegative = 0
    """Seeds the draw; the same log gives the same order."""
    history: Positive = 50
    """Most recent items of a user in histories.parquet, which the feature store serves; at least the encoder's
    window. Above 50 the feature view's WINDOW (features/views.py) must grow as well."""
