"""The base class of loss terms (docs/extending.md)."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.errors import UserError
from elcrec.registry import IntentKind
from elcrec.training.step import Context, Step

Need = Literal["states", "views", "padding"]
"""`states`: the states of all items of the sequences, not only the predicting ones. `views`: the states of two
augmented views of each sequence. `padding`: the states of an empty window."""


class Term(ABC):
    """One term of the loss.

    Attributes:
        weight: default weight, unless `train.weights` sets one.
        needs: what it reads of a step besides the targets and the states that predict them.
        intents: the kinds of intents that it supports; empty if it needs none.
    """

    weight: ClassVar[float] = 1.0
    needs: frozenset[Need] = frozenset()
    intents: ClassVar[tuple[IntentKind, ...]] = ()

    def __init__(self, name: str, config: TrainConfig) -> None:
        """Keep the configuration.

        Raises:
            UserError: the term needs intents that the objective does not have.
        """
        self.name, self.config = name, config
        if self.intents and config.model.intents not in self.intents:
            what = f"the loss term {name!r} needs {' or '.join(self.intents)} intents"
            fix = f"objective {config.objective!r} has {config.model.intents or 'none'}: choose another"
            raise UserError(what, where="train.objective", fix=fix)

    @abstractmethod
    def __call__(self, context: Context) -> Tensor:
        """Return the term's value, without its weight."""

    def looked_up(self, step: Step) -> list[Tensor]:  # noqa: ARG002 - for subclasses
        """Return the items whose vectors the term needs; they are looked up together with the encoder's."""
        return []
