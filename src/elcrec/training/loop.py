"""The training loop: epochs of steps, validation, early stopping, checkpoints."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elcrec.config import TrainConfig, to_dict
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.errors import UserError
from elcrec.evaluation.intents import effective_number
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.sequence_model import SequenceModel
from elcrec.ops.device import choose_device
from elcrec.progress import track, watch
from elcrec.training.additions import Strength, add_to_scores
from elcrec.training.average import MovingAverage, weights_of
from elcrec.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from elcrec.training.compilation import compiled
from elcrec.training.data import TrainingData
from elcrec.training.distributed import (
    ALONE,
    Ranks,
    average_gradients,
    copy_from_leader,
    gather_integers,
    mean_over_ranks,
)
from elcrec.training.grouped_steps import GroupedSteps
from elcrec.training.item_intents import place_intents, settle, share_centers
from elcrec.training.lazy_items import LazyItems
from elcrec.training.objective import Objective
from elcrec.training.packed_steps import PackedSteps
from elcrec.training.step import Step, Steps
from elcrec.training.warm_start import WarmStart

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@20"
_USERS_AT_ONCE = 16_384


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The result of training: the best model, the loss terms, the progress, and validation metrics.

    `additions` is what was chosen of what adds to scores (`elcrec.training.additions`).
    """

    model: SequenceModel
    terms: list[str]
    progress: Progress
    valid: dict[str, float]
    additions: dict[str, Strength]


def fit(
    data: SequenceData,
    config: TrainConfig,
    checkpoint: Path,
    ranks: Ranks = ALONE,
    warm_start: WarmStart | None = None,
    valid: EvaluationSet | None = None,
) -> Fitted:
    """Train until validation stops improving; resume from `checkpoint` if the same run was interrupted.

    With several ranks, all must see the same `checkpoint`; only the leader writes it. `valid` is the evaluation set if
    it is not all users with a validation target.

    Raises:
        UserError: the data cannot be used for training, there is no validation target, the device does not exist, the
            ranks do not find the same checkpoint, or the warm start does not match.
    """
    run = Run(data, config, choose_device(config.device), ranks, warm_start)
    valid = data.evaluation("valid") if valid is None else valid
    if not len(valid.users):
        raise UserError("no user has a validation target", fix="bring a longer log or another split")
    progress = run.begin(checkpoint)
    while progress.epoch < _last_epoch(config, progress):
        run.advance(progress, valid)
        if ranks.leads:
            save_checkpoint(checkpoint, run.fingerprint, progress, run.modules, run.best, run.optimizer)
    run.model.load_state_dict(run.best)
    settle(run.model)
    model = run.model.eval()
    additions = run.add_to_scores(valid)
    metrics = validate(model, valid, ranks)
    return Fitted(model=model, terms=list(run.objective.terms), progress=progress, valid=metrics, additions=additions)


def _last_epoch(config: TrainConfig, progress: Progress) -> int:
    """Return the epoch after which training stops unless a validation before it is better; it is validated."""
    allowed = progress.best_epoch + config.patience
    return config.epochs if allowed >= config.epochs else allowed - allowed % config.eval_every


def validate(model: SequenceModel, valid: EvaluationSet, ranks: Ranks = ALONE) -> dict[str, float]:
    """Rank the validation targets, each rank its share, and measure the distribution of users over intents."""
    # An item table that is a sum is computed once, not for every block of users.
    with parametrize.cached():
        return _validate(model, valid, ranks)


def _validate(model: SequenceModel, valid: EvaluationSet, ranks: Ranks) -> dict[str, float]:
    own, items_VD = valid.part(ranks.index, ranks.count), model.item_vectors()
    # A rank may have no users.
    places, intents = [torch.empty(0, dtype=torch.int32)], [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(own.users), _USERS_AT_ONCE):
        block = own.slice(start, start + _USERS_AT_ONCE)
        encoded = model.encode(block.histories)
        question = encoded.vectors, items_VD, block.excluded, block.target_items
        ranking = rank_targets(*question, add=model.adder(block.histories), top_k=0)
        places.append(torch.from_numpy(ranking.ranks))
        intents.append(encoded.intents.cpu())
    everyone = [torch.cat(places), torch.cat(intents)]
    if ranks.count > 1:
        everyone = [gather_integers(part.to(model.device)).cpu() for part in everyone]
    metrics = mean_metrics(everyone[0].numpy())
    if model.num_intents:
        metrics["effective_intents"] = effective_number(np.bincount(everyone[1].numpy()))
    return metrics


class Run:
    """One training run: model, objective, steps, optimiser, moving average, the best weights so far.

    Its `fingerprint` identifies everything that it depends on: configuration, data, device, ranks and warm start.
    """

    def __init__(
        self,
        data: SequenceData,
        config: TrainConfig,
        device: torch.device,
        ranks: Ranks = ALONE,
        warm_start: WarmStart | None = None,
    ) -> None:
        """Draw the initial weights.

        Raises:
            UserError: the data cannot be used for training, or the device or the objective lacks what is needed.
        """
        self._config, self._ranks, self._device, self._warm_start = config, ranks, device, warm_start
        self._data, self.objective = TrainingData(data, config, ranks), Objective(config)
        torch.manual_seed(config.seed)
        self.model = SequenceModel(config.model, data.num_items)
        if config.padding == "encoded":
            self.model.encoder.draw_padding()
        if config.model.intents == "items":
            earlier = warm_start.item_intents(config.intents.num_intents) if warm_start else None
            with watch("finding intents of items", lambda: None, quiet=not ranks.leads):
                share_centers(self.model, self._data, config.intents, config.seed, earlier)
        self.model.to(device)
        recorded = device.type == "cuda" and ranks.count == 1
        self.steps = self._make_steps(recorded=recorded)
        losses = partial(self.objective.losses, self.model)
        self._losses = compiled(losses, config.batch_size) if config.compile else losses
        lazy = config.item_updates == "lazy"
        weights = weights_of(self.model, but_items=lazy)
        self.optimizer = torch.optim.Adam(weights, lr=config.learning_rate, fused=True, capturable=recorded)
        self.items = LazyItems(self.model, config.learning_rate, ranks, fixed_shapes=recorded) if lazy else None
        self.average = MovingAverage(self.model, config.averaging, items_apart=lazy) if config.averaging else None
        self.best: dict[str, Tensor] = {}
        origin = warm_start.digest if warm_start else None
        identity = json.dumps([to_dict(config), data.md5, device.type, ranks.count, origin], sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def _make_steps(self, *, recorded: bool) -> Steps:
        """Return packed and recorded steps for a single GPU, and grouped steps for everything else."""
        inputs = (self._data, self._config, self.objective.needs, self._device)
        if recorded:
            return PackedSteps(*inputs)
        if self._config.compile:
            where = "a CPU" if self._device.type == "cpu" else f"{self._ranks.count} of them"
            raise UserError(f"train.compile is for training on one GPU, not on {where}", fix="leave it off")
        return GroupedSteps(*inputs, self._ranks)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that training changes, by name."""
        kept = {"model": self.model, "average": self.average, "items": self.items}
        return {name: module for name, module in kept.items() if module is not None}

    def begin(self, checkpoint: Path) -> Progress:
        """Restore an interrupted run, or start a new one: place the weights and the centres.

        Raises:
            UserError: the ranks do not find the same checkpoint, or the warm start does not match.
        """
        restored = restore_checkpoint(checkpoint, self.fingerprint, self.modules, self.optimizer)
        self._require_the_same(0 if restored is None else restored[0].epoch, checkpoint)
        if restored is None:
            if self._warm_start is None or not self._warm_start.lay_over(self.model):
                self.objective.before_epoch(self.model, self._data, self._config.seed, first=True)
            return Progress()
        progress, self.best = restored
        self.steps.room = progress.room or self.steps.room
        logger.info("resuming after epoch %d from %s", progress.epoch, checkpoint)
        return progress

    def _require_the_same(self, epoch: int, checkpoint: Path) -> None:
        if self._ranks.count == 1:
            return
        epochs = gather_integers(torch.tensor([epoch], device=self._device))
        if int(epochs.min()) < int(epochs.max()):
            fix = "put the checkpoint on a file system that all nodes share"
            raise UserError("the ranks do not find the same checkpoint", where=checkpoint, fix=fix)

    def advance(self, progress: Progress, valid: EvaluationSet) -> None:
        """Train one epoch, validate if it is due, keep the best weights."""
        started = time.perf_counter()
        progress.epoch += 1
        row: dict[str, Any] = {"epoch": progress.epoch, **self.train_epoch(progress.epoch)}
        progress.room = self.steps.room
        if progress.epoch % self._config.eval_every == 0 or progress.epoch == self._config.epochs:
            model = self.candidate()
            metrics = validate(model, valid, self._ranks)
            row |= {f"valid_{name}": metrics[name] for name in (SELECTION_METRIC, "hr@20")}
            row |= {name: metrics[name] for name in ("effective_intents",) if name in metrics}
            if metrics[SELECTION_METRIC] > progress.best_score:
                progress.best_epoch, progress.best_score = progress.epoch, metrics[SELECTION_METRIC]
                self.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        row["seconds"] = round(time.perf_counter() - started, 3)
        progress.history.append(row)
        if self._ranks.leads:
            logger.info(self._line(row, progress))

    def candidate(self) -> SequenceModel:
        """Return the model to validate: the last weights or their average."""
        model = self.model
        if self.average is not None:
            model = self.average.module
            self.average.copy_buffers(self.model)
            if self.items is not None:
                self.items.settle(self.model, self.average)
            self.objective.after_step(model)
        place_intents(model)
        return model

    def add_to_scores(self, valid: EvaluationSet) -> dict[str, Strength]:
        """Let the model know what adds to scores besides vectors."""
        return add_to_scores(self.model, self._data, valid, self._config, quiet=not self._ranks.leads)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Take every step once; return the mean of each loss, their sum first."""
        seed, leads = self._config.seed * 1_000_003 + epoch, self._ranks.leads
        self.objective.before_epoch(self.model, self._data, seed)
        if self._ranks.count > 1:
            copy_from_leader(self.model)
        # Ranks draw the same users, negatives and views, but their own dropout.
        torch.manual_seed(seed + 7_919 * self._ranks.index)
        self.model.train()
        steps = track(self.steps.epoch(seed), total=self._data.num_steps, label=f"epoch {epoch}", quiet=not leads)
        with self.steps.running():
            return self.mean(self.take(step) for step in steps)

    def take(self, step: Any) -> dict[str, Tensor]:
        """Take one of the steps that `steps.epoch` yields; return its losses, their sum first."""
        losses = self.steps.run(step, self._update)
        if self.average is not None:
            self.average.follow(self.model)
        return losses

    def _update(self, step: Step) -> dict[str, Tensor]:
        """Move the weights."""
        if self.items is None:
            return self._descend(step)
        with self.items.reading(self.model, self.average, step) as renumbered:
            return self._descend(renumbered)

    def _descend(self, step: Step) -> dict[str, Tensor]:
        """Take the optimiser's step down the gradient."""
        losses = self._losses(step)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self._ranks.count > 1:
            average_gradients(self.model)
        self.optimizer.step()
        self.objective.after_step(self.model)
        return {"loss": total.detach(), **{name: loss.detach() for name, loss in losses.items()}}

    def mean(self, steps: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Return the mean of each loss over steps and ranks; the device is synchronised once per epoch.

        Losses are summed as they come: thousands of small tensors kept to the end would fragment the heap.
        """
        names: list[str] = []
        sums, count = torch.zeros((), dtype=torch.float64, device=self._device), 0
        for step in steps:
            names, count = list(step), count + 1
            sums = sums + torch.stack(list(step.values()))
        means = mean_over_ranks(sums / count) if self._ranks.count > 1 else sums / count
        return dict(zip(names, means.tolist(), strict=True))

    def _line(self, row: dict[str, Any], progress: Progress) -> str:
        """Return the log line of an epoch: losses, validation, pace and the longest remaining time."""
        parts = [f"epoch {row['epoch']}/{self._config.epochs}", f"loss {row['loss']:.4f}"]
        if f"valid_{SELECTION_METRIC}" in row:
            score, best = row[f"valid_{SELECTION_METRIC}"], progress.best_score
            parts.append(f"valid {SELECTION_METRIC} {score:.4f} (best {best:.4f} at {progress.best_epoch})")
        if "effective_intents" in row:
            parts.append(f"{row['effective_intents']:.1f} intents in use")
        left = _last_epoch(self._config, progress) - row["epoch"]
        pace = sum(past["seconds"] for past in progress.history) / len(progress.history)
        return "  ".join([*parts, f"{row['seconds']:.1f} s", f"{left * pace:.0f} s left unless it improves"])
