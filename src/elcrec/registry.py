"""The names that a configuration may use, and the class behind each.

A new kind of block or loss is one new file and one line here (docs/extending.md). Nothing is imported before it is
used, so reading a configuration does not cost PyTorch.
"""

from importlib import import_module
from typing import Any, Literal, NamedTuple

IntentKind = Literal["learned", "clustered", "assigned", "items"]
HeadKind = Literal["dot", "cosine"]

MIXERS = {
    "attention": "elcrec.model.attention:Attention",
    "rotary": "elcrec.model.attention:RotaryAttention",
    "skip": "elcrec.model.skip:Skip",
    "differences": "elcrec.model.differences:Differences",
    "gated_differences": "elcrec.model.gated_differences:GatedDifferences",
}
"""Sequence mixers of `train.encoder.mixer`, subclasses of `elcrec.model.mixer.Mixer`."""

TERMS = {
    "next_item": "elcrec.training.terms.next_item:NextItem",
    "sequence": "elcrec.training.terms.contrast:SequenceContrast",
    "intent": "elcrec.training.terms.contrast:IntentContrast",
    "cluster": "elcrec.training.terms.cluster:Cluster",
}
"""Loss terms, subclasses of `elcrec.training.terms.term.Term`."""


class Objective(NamedTuple):
    """An objective: what training minimises.

    Attributes:
        label: the method's name for readers.
        terms: names of the loss terms, in the order of their columns.
        intents: how the model's intent centres come about; `None` for a model without intents.
    """

    label: str
    terms: tuple[str, ...]
    intents: IntentKind | None = None


OBJECTIVES = {
    "sasrec": Objective("SASRec", ("next_item",)),
    "iclrec": Objective("ICLRec", ("next_item", "sequence", "intent"), "clustered"),
    "elcrec": Objective("ELCRec", ("next_item", "sequence", "intent", "cluster"), "learned"),
    "elcrec2": Objective("ELCRec2", ("next_item",), "items"),
}
"""Objectives of `train.objective`."""


def find_objective(text: str) -> Objective:
    """Return an objective by its name, such as `elcrec`, with further terms after a plus sign (`sasrec+sequence`).

    Raises:
        ValueError: the name or a term is unknown, or a term occurs twice.
    """
    name, *more = text.split("+")
    if name not in OBJECTIVES:
        raise ValueError(f"objective {name!r} is not one of {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[name]
    for term in more:
        require_known(term, TERMS, "term of objective")
    terms = (*objective.terms, *more)
    if len(set(terms)) < len(terms):
        raise ValueError(f"objective {text!r} has a term twice: {', '.join(terms)}")
    return objective._replace(label="+".join((objective.label, *more)), terms=terms)


def require_known(name: str, known: dict[str, str], what: str) -> None:
    """Check that a name is registered.

    Raises:
        ValueError: it is not registered.
    """
    if name not in known:
        raise ValueError(f"{what} {name!r} is not one of {', '.join(known)}")


def load(place: str) -> Any:
    """Return the class at a path such as `elcrec.model.attention:Attention`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
