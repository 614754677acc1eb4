"""The training loop: epochs of steps, validation, early stopping, checkpoints."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elcrec.config import TrainConfig, to_dict
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.errors import UserError
from elcrec.evaluation.intents import effective_number
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.elcrec import SequenceModel, TrainingBatch
from elcrec.model.intents import ClusteredIntents, LearnedIntents
from elcrec.progress import track
from elcrec.training.batches import TrainingData
from elcrec.training.checkpoint import Progress, restore_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@20"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and how it got there.

    Attributes:
        model: the weights of the best validation.
        progress: epochs, best epoch and history.
        valid: validation metrics of the best epoch.
    """

    model: SequenceModel
    progress: Progress
    valid: dict[str, float]


def fit(data: SequenceData, config: TrainConfig, checkpoint: Path) -> Fitted:
    """Train until validation stops improving; goes on from `checkpoint` if a run of the same kind was cut off.

    Raises:
        UserError: the data cannot be trained on, there is no validation target, or no such device.
    """
    device = choose_device(config.device)
    batches, valid = TrainingData(data, config), data.evaluation("valid")
    if not len(valid.users):
        raise UserError("no user has a validation target", fix="bring a longer log or another split")
    run = _Run(data, config, batches, device)
    progress = run.resume(checkpoint)
    while progress.epoch < config.epochs and progress.epoch - progress.best_epoch < config.patience:
        run.advance(progress, valid)
        save_checkpoint(checkpoint, run.fingerprint, progress, run.model, run.best, run.optimizer)
    run.model.load_state_dict(run.best)
    return Fitted(model=run.model.eval(), progress=progress, valid=validate(run.model, valid))


def validate(model: SequenceModel, valid: EvaluationSet) -> dict[str, float]:
    """Rank the validation targets and describe how the users spread over the intents."""
    encoded = model.encode(valid.histories)
    ranking = rank_targets(encoded.vectors, model.item_vectors(), valid.histories, valid.target_items, top_k=0)
    metrics = mean_metrics(ranking.ranks)
    if model.num_intents:
        metrics["effective_intents"] = effective_number(np.bincount(encoded.intents.cpu().numpy()))
    return metrics


def choose_device(name: str) -> torch.device:
    """Return the device of a configuration; `auto` is CUDA where there is a GPU.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but PyTorch finds no GPU", fix="set it to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class _Run:
    """One training run: model, optimiser and the best weights so far."""

    def __init__(self, data: SequenceData, config: TrainConfig, batches: TrainingData, device: torch.device) -> None:
        if config.objective != "sasrec" and batches.num_users < config.intents.num_intents:
            raise UserError(
                f"{batches.num_users} users for {config.intents.num_intents} intents", fix="lower train.intents"
            )
        torch.manual_seed(config.seed)
        self.config, self.batches, self.device = config, batches, device
        self.model = SequenceModel(config, data.num_items).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.best: dict[str, Tensor] = {}
        identity = json.dumps([to_dict(config), data.md5, str(device)], sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def resume(self, checkpoint: Path) -> Progress:
        """Restore a cut-off run, or place the intent centres and start at the beginning."""
        restored = restore_checkpoint(checkpoint, self.fingerprint, self.model, self.optimizer)
        if restored is None:
            self._place_intents(self.config.seed)
            return Progress()
        progress, self.best = restored
        logger.info("resuming after epoch %d from %s", progress.epoch, checkpoint)
        return progress

    def advance(self, progress: Progress, valid: EvaluationSet) -> None:
        """Train one epoch, validate if it is time, keep the best weights."""
        started = time.perf_counter()
        progress.epoch += 1
        row: dict[str, Any] = {"epoch": progress.epoch, **self._train_epoch(progress.epoch)}
        if progress.epoch % self.config.eval_every == 0 or progress.epoch == self.config.epochs:
            metrics = validate(self.model, valid)
            row |= {f"valid_{name}": metrics[name] for name in (SELECTION_METRIC, "hr@20")}
            row |= {name: metrics[name] for name in ("effective_intents",) if name in metrics}
            if metrics[SELECTION_METRIC] > progress.best_score:
                progress.best_epoch, progress.best_score = progress.epoch, metrics[SELECTION_METRIC]
                self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        row["seconds"] = round(time.perf_counter() - started, 3)
        progress.history.append(row)
        logger.info(_line(row, progress, self.config))

    def _place_intents(self, seed: int) -> None:
        if self.model.intents is not None:
            generator = torch.Generator().manual_seed(seed)
            self.model.intents.initialise(self.model.pooled(self.batches.inputs()), generator)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Take every step once; return the mean of each loss."""
        seed = self.config.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        if isinstance(self.model.intents, ClusteredIntents):
            self._place_intents(seed)
        steps = self.batches.epoch(torch.Generator().manual_seed(seed), self.device)
        self.model.train()
        return _mean([self._step(batch) for batch in track(steps, total=len(self.batches), label=f"epoch {epoch}")])

    def _step(self, batch: TrainingBatch) -> dict[str, Tensor]:
        losses = self.model.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if isinstance(self.model.intents, LearnedIntents):
            self.model.intents.renormalise()
        return {"loss": total.detach(), **{name: loss.detach() for name, loss in losses.items()}}


def _mean(steps: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    rows = list(steps)
    return {name: float(torch.stack([row[name] for row in rows]).double().mean()) for name in rows[0]}


def _line(row: dict[str, Any], progress: Progress, config: TrainConfig) -> str:
    """One line an epoch: losses, validation, pace and the longest time left."""
    parts = [f"epoch {row['epoch']}/{config.epochs}", f"loss {row['loss']:.4f}"]
    if f"valid_{SELECTION_METRIC}" in row:
        score, best = row[f"valid_{SELECTION_METRIC}"], progress.best_score
        parts.append(f"valid {SELECTION_METRIC} {score:.4f} (best {best:.4f} at {progress.best_epoch})")
    if "effective_intents" in row:
        parts.append(f"{row['effective_intents']:.1f} intents in use")
    left = min(config.epochs, progress.best_epoch + config.patience) - row["epoch"]
    pace = sum(past["seconds"] for past in progress.history) / len(progress.history)
    return "  ".join([*parts, f"{row['seconds']:.1f} s", f"{left * pace:.0f} s left unless it improves"])
