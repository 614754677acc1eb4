"""The objective: the loss terms of a step, and the updates of the intents around it.

Axes: `B` sequences, `M` items, `N` flat positions, `T` window, `D` hidden size.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from elcrec.config import TrainConfig
from elcrec.data.dataset import PADDING
from elcrec.errors import UserError
from elcrec.model.intents import SequenceIntents
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.lookup import look_up
from elcrec.registry import TERMS, find_objective, load
from elcrec.training.data import TrainingData
from elcrec.training.step import Context, States, Step
from elcrec.training.terms.term import Need, Term


class Objective:
    """The terms of a configuration's objective with non-zero weight.

    Attributes:
        terms: the terms by name, in the order of their columns.
        needs: the parts of a step that they read.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Create the terms.

        Raises:
            UserError: a term needs intents that the objective does not have, or no term has a weight.
        """
        kinds: dict[str, type[Term]] = {name: load(TERMS[name]) for name in find_objective(config.objective).terms}
        self._config = config
        self._weights = {name: config.weights.get(name, kind.weight) for name, kind in kinds.items()}
        self.terms = {name: kind(name, config) for name, kind in kinds.items() if self._weights[name]}
        if not self.terms:
            fix = f"give one of {', '.join(kinds)} a weight in train.weights"
            raise UserError(f"objective {config.objective}: all terms have the weight 0", fix=fix)
        self.needs: frozenset[Need] = frozenset().union(*(term.needs for term in self.terms.values()))

    def losses(self, model: SequenceModel, step: Step) -> dict[str, Tensor]:
        """Return the weighted terms by name; their sum is what training minimises."""
        table_VD = model.encoder.item_embedding.weight  # Read once: it may be a sum, computed whenever it is read.
        embedded_ND, vectors = self._look_up(table_VD, step)
        with self._products(model):
            if self._config.next_item.prefixes and not self.needs:
                predicting_MD = model.encoder.last(step.rows, embedded_ND)
                own = States(predicting_MD, step.rows, {})
            else:
                own = States(step.rows.of_items(model.encoder(step.rows, embedded_ND)), step.rows, step.parts)
                predicting_MD = self._predicting(own, step)
        context = Context(
            model=model,
            step=step,
            predicting_MD=predicting_MD,
            table_VD=table_VD,
            vectors=vectors,
            states=_of_all_processes(own, step),
            padding_TD=own.of("padding") if "padding" in self.needs else None,
        )
        return {name: self._weights[name] * term(context) for name, term in self.terms.items()}

    def _look_up(self, table_VD: Tensor, step: Step) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Look up all vectors for the encoder and the terms together, so that a dense gradient is made only once."""
        wanted = {name: term.looked_up(step) for name, term in self.terms.items()}
        parts = [step.rows.items_N, *(items for asked in wanted.values() for items in asked)]
        looked_up = look_up(table_VD, torch.cat(parts), PADDING)
        found = iter(torch.split(looked_up, [len(items) for items in parts]))
        return next(found), {name: [next(found) for _ in asked] for name, asked in wanted.items()}

    def _predicting(self, own: States, step: Step) -> Tensor:
        """Return the state before each target: at every item, or at the end of each prefix."""
        if not self._config.next_item.prefixes:
            return own.of("inputs")
        ends_B = own.rows.lengths_B[: len(step.targets_M)].cumsum(0) - 1
        return own.states_MD.index_select(0, ends_B)

    def _products(self, model: SequenceModel) -> AbstractContextManager[object]:
        """Run matrix products in the configured type; LayerNorm returns float32."""
        exact = self._config.precision == "float32"
        return nullcontext() if exact else torch.autocast(model.device.type, torch.bfloat16)

    def before_epoch(self, model: SequenceModel, data: TrainingData, seed: int, *, first: bool = False) -> None:
        """Place the centres by k-means on users' mean states: before every epoch, or only before the first.

        The seed determines the sampled users, and the initial centres among them.
        """
        intents = model.intents
        if not isinstance(intents, SequenceIntents) or first == intents.placed_every_epoch:
            return
        generator = torch.Generator().manual_seed(seed)
        rows = data.sample(intents.points_per_center * model.num_intents, generator)
        intents.initialise(
            model.pooled(rows.head(rows.lengths - 1), padded=self._config.padding == "encoded"), generator
        )

    def after_step(self, model: SequenceModel) -> None:
        """Restore the constraints on the centres, such as unit length."""
        if model.intents is not None:
            model.intents.after_step()


def _of_all_processes(own: States, step: Step) -> States:
    """Gather the states of all processes; the empty window is the same for each."""
    if step.exchange is None:
        return own
    last = own.parts["padding"].items.start if "padding" in own.parts else None
    return step.exchange.gather(own.states_MD[:last])
