"""L_next: the next item against other items.

Axes: `M` targets, `N` positions, `V` items, `D` hidden size.
"""

from typing import Any

import torch
from torch import Tensor

from elcrec.ops.losses import binary_loss, sampled_softmax_loss, softmax_loss
from elcrec.training.step import Context, Step
from elcrec.training.terms.term import Term


class NextItem(Term):
    """L_next by binary cross entropy against one drawn item, or by cross entropy among all or drawn items."""

    def __call__(self, context: Context) -> Tensor:
        """Return this process's share of the mean over the targets of all processes."""
        step, head, states_MD = context.step, context.model.head, self._queries(context)
        if self.config.next_item.loss == "bce":
            positives_MD, negatives_MD = map(head.items, context.vectors[self.name])
            return step.share * binary_loss(states_MD, positives_MD, negatives_MD, step.weights_M)
        table_VD = context.table_VD
        products = torch.bfloat16 if self.config.precision == "bfloat16" else None
        robustness = self.config.next_item.robustness
        given: dict[str, Any] = {"weights_N": step.weights_M, "products": products, "robustness": robustness}
        if step.negatives is None or step.negatives.log_counts is None:
            loss = softmax_loss(states_MD, head.items(table_VD), step.targets_M, **given)
        else:
            drawn = (step.negatives.items, step.negatives.log_counts)
            loss = sampled_softmax_loss(states_MD, table_VD, step.targets_M, *drawn, as_scored=head.items, **given)
        return step.share * loss

    def _queries(self, context: Context) -> Tensor:
        """Return the queries that score items, [M, D], from the states, or from several dropouts of each state."""
        states_MD, model = context.predicting_MD, context.model
        samples = self.config.next_item.dropouts
        if not samples:
            return model.head.queries(states_MD)
        return model.head.queries(model.encoder.dropout(states_MD.expand(samples, -1, -1))).mean(0)

    def looked_up(self, step: Step) -> list[Tensor]:
        """Return targets and negatives if each target has its own negative, so that their gradient is made once."""
        if self.config.next_item.loss != "bce" or step.negatives is None:
            return []
        return [step.targets_M, step.negatives.items]
