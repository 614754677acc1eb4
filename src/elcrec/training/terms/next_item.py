"""L_next: the next item against other items.

Axes: `M` targets, `N` positions, `V` items, `D` hidden size.
"""

import torch
from torch import Tensor

from elcrec.ops.losses import binary_loss, sampled_softmax_loss, softmax_loss
from elcrec.training.step import Context, Step
from elcrec.training.terms.term import Term


class NextItem(Term):
    """By binary cross entropy against one drawn item, or cross entropy among all items or some."""

    def __call__(self, context: Context) -> Tensor:
        """Return the mean over the targets of all processes, this process's share of it."""
        step, states_MD = context.step, context.predicting_MD
        if self.config.next_item.loss == "bce":
            positives_MD, negatives_MD = context.vectors[self.name]
            return step.share * binary_loss(states_MD, positives_MD, negatives_MD, step.weights_M)
        table_VD = context.model.encoder.item_embedding.weight
        products = torch.bfloat16 if self.config.precision == "bfloat16" else None
        if step.negatives is None or step.negatives.log_counts is None:
            loss = softmax_loss(states_MD, table_VD, step.targets_M, weights_N=step.weights_M, products=products)
        else:
            drawn = (step.negatives.items, step.negatives.log_counts)
            loss = sampled_softmax_loss(
                states_MD, table_VD, step.targets_M, *drawn, weights_N=step.weights_M, products=products
            )
        return step.share * loss

    def looked_up(self, step: Step) -> list[Tensor]:
        """Return the targets and their negatives, where each is compared with one: their gradient is made once."""
        if self.config.next_item.loss != "bce" or step.negatives is None:
            return []
        return [step.targets_M, step.negatives.items]
