"""The section `sequences`: how interactions become sequences and a split."""

from typing import Annotated, Literal

from msgspec import Meta

from elcrec.config.section import NonNegative, Positive, PositiveFloat, Section, Weight


class KindsConfig(Section, frozen=True, kw_only=True):
    """The meaning of the kinds of events, which are in `validate.kind_column`."""

    weights: dict[str, Weight] = {}
    """Weight of a kind's events as targets of L_next; the default is 1."""
    targets: tuple[str, ...] = ()
    """Kinds of events that can be validation and test targets, such as buy; empty: all."""
    dislikes: tuple[str, ...] = ()
    """Kinds that express dislike: such an event is not an interaction, and its item is never recommended to this
    user."""

    @property
    def named(self) -> list[str]:
        """All kinds that are configured."""
        return sorted({*self.weights, *self.targets, *self.dislikes})

    def __post_init__(self) -> None:
        """Check that no kind is both a dislike and a target or weighted."""
        both = sorted({*self.weights, *self.targets} & {*self.dislikes})
        if both:
            raise ValueError(f"kinds: {both[0]!r} is a dislike, so it cannot be a target or have a weight")


class SequencesConfig(Section, frozen=True, kw_only=True):
    """How interactions become sequences and a split."""

    k_core: NonNegative = 0
    """k-core: users and items with fewer interactions are removed repeatedly until none is left; 0 keeps all."""
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    """`leave_one_out`: the last item is the test target, the one before it the validation target.
    `temporal`: all histories are cut at two instants; a user's first item after a cut is their target."""
    valid_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions between the two cuts."""
    test_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.1
    """Temporal split: share of interactions after the second cut."""
    repeats: Literal["exclude", "allow"] = "exclude"
    """Whether an item that a user has already met may be recommended. `exclude`: never, and a target that occurred
    before counts as missed. `allow`: it competes like any other. This applies to validation during training, the
    evaluation, the gate, the server and `recommend-all`; it is stored in the bundle."""
    kinds: KindsConfig = KindsConfig()
    """The meaning of kinds of events."""
    consecutive: Literal["keep", "merge"] = "keep"
    """`merge`: of consecutive events of a user with the same item (and kind), only the first counts, also in the
    histories that a server reads."""
    most_events: NonNegative = 0
    """Users with more events are left out, before `k_core` is applied; 0 keeps all."""
    session_gap: PositiveFloat | None = None
    """Minutes without an event after which a session ends; each session becomes its own sequence (real times only). A
    user's newest session keeps their id, is served, and receives their live events. `None`: all events of a user are
    one sequence. If the log has ids of sessions, name their column in `validate.user_column` instead."""
    ties: Literal["log", "column", "drawn"] = "log"
    """Order of a user's events at the same time: as in the log, by `validate.tie_column`, or drawn at random. In a log
    that was sorted by item, the order would reveal the next item to the model."""
    ties_seed: NonNegative = 0
    """Seed of the draw; the same log gives the same order."""
    history: Positive = 50
    """Number of a user's most recent items in histories.parquet, which the feature store serves; at least the encoder's
    window. Above 50, raise the feature view's WINDOW (features/views.py) as well."""
