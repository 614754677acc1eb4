"""L_assignment: maximises the mutual information between sequences and their intents.

Source: regularised information maximisation (Krause, Perona and Gomes, "Discriminative Clustering by Regularized
Information Maximization", NIPS 2010), here over the centres that score items. ELCRec's L_cluster depends only on two
means, so all sequences may collapse into one intent.

Axes: `B` sequences, `K` intents.
"""

from torch import Tensor

from elcrec.model.intents import AssignedIntents
from elcrec.training.step import Context
from elcrec.training.terms.term import Need, Term

_LEAST = 1e-9
"""Smaller than any relevant share; keeps the logarithm finite."""


class Assignment(Term):
    """The negative mutual information: assignments become certain, and intents are used equally."""

    weight = 0.1
    needs: frozenset[Need] = frozenset({"states"})
    intents = ("assigned",)

    def __call__(self, context: Context) -> Tensor:
        """Return the mean entropy of the sequences' shares minus the entropy of their mean over the step, in nats."""
        intents = context.model.intents
        assert isinstance(intents, AssignedIntents)
        shares_BK = intents.shares(context.states.means("inputs"))
        return _entropy(shares_BK).mean() - _entropy(shares_BK.mean(0))


def _entropy(shares: Tensor) -> Tensor:
    """Entropy over the last axis."""
    entropy: Tensor = -(shares * (shares + _LEAST).log()).sum(-1)
    return entropy
