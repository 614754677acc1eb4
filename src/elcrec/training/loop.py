"""The training loop: epochs of steps, validation, early stopping, checkpoints."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elcrec.config import TrainConfig, to_dict
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.errors import UserError
from elcrec.evaluation.intents import effective_number
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.elcrec import SequenceModel, TrainingBatch
from elcrec.model.intents import ClusteredIntents, Intents, LearnedIntents
from elcrec.progress import track
from elcrec.training.average import MovingAverage
from elcrec.training.batches import TrainingData
from elcrec.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from elcrec.training.compilation import compiled
from elcrec.training.distributed import (
    ALONE,
    Ranks,
    average_gradients,
    copy_from_leader,
    gather_integers,
    local_rank,
    mean_over_ranks,
)
from elcrec.training.recording import Recorder
from elcrec.training.resident import ResidentData, Sizes
from elcrec.training.warm_start import WarmStart

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@20"
_USERS_AT_ONCE = 16_384


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


def fit(
    data: SequenceData, config: TrainConfig, checkpoint: Path, ranks: Ranks = ALONE, warm_start: WarmStart | None = None
) -> Fitted:
    """Train until validation stops improving; goes on from `checkpoint` if a run of the same kind was cut off.

    With several ranks all must see the same `checkpoint`; the leader alone writes it.

    Raises:
        UserError: the data cannot be trained on, there is no validation target, no such device, the ranks do not
            find the same checkpoint, or the warm start does not fit.
    """
    device = choose_device(config.device)
    batches, valid = TrainingData(data, config, ranks), data.evaluation("valid")
    if not len(valid.users):
        raise UserError("no user has a validation target", fix="bring a longer log or another split")
    run = _Run(data, config, batches, device, ranks, warm_start)
    progress = run.resume(checkpoint)
    while progress.epoch < config.epochs and progress.epoch - progress.best_epoch < config.patience:
        run.advance(progress, valid)
        if ranks.leads:
            save_checkpoint(checkpoint, run.fingerprint, progress, run.modules, run.best, run.optimizer)
    run.model.load_state_dict(run.best)
    return Fitted(model=run.model.eval(), progress=progress, valid=validate(run.model, valid, ranks))


def validate(model: SequenceModel, valid: EvaluationSet, ranks: Ranks = ALONE) -> dict[str, float]:
    """Rank the validation targets, each rank its share, and describe how the users spread over the intents."""
    own, items_VD = valid.part(ranks.index, ranks.count), model.item_vectors()
    # A rank may have no user at all.
    places, intents = [torch.empty(0, dtype=torch.int32)], [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(own.users), _USERS_AT_ONCE):
        block = own.slice(start, start + _USERS_AT_ONCE)
        encoded = model.encode(block.histories)
        ranking = rank_targets(encoded.vectors, items_VD, block.histories, block.target_items, top_k=0)
        places.append(torch.from_numpy(ranking.ranks))
        intents.append(encoded.intents.cpu())
    return _describe(torch.cat(places), torch.cat(intents), model, ranks)


def _describe(places: Tensor, intents: Tensor, model: SequenceModel, ranks: Ranks) -> dict[str, float]:
    """Metrics of all ranks' users."""
    if ranks.count > 1:
        places, intents = (gather_integers(own.to(model.device)).cpu() for own in (places, intents))
    metrics = mean_metrics(places.numpy())
    if model.num_intents:
        metrics["effective_intents"] = effective_number(np.bincount(intents.numpy()))
    return metrics


def choose_device(name: str) -> torch.device:
    """Return the device of a configuration; `auto` is CUDA where there is a GPU.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but PyTorch finds no GPU", fix="set it to auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


class _Run:
    """One training run: model, optimiser and the best weights so far."""

    def __init__(
        self,
        data: SequenceData,
        config: TrainConfig,
        batches: TrainingData,
        device: torch.device,
        ranks: Ranks = ALONE,
        warm_start: WarmStart | None = None,
    ) -> None:
        if config.has_intents and batches.num_users < config.intents.num_intents:
            raise UserError(
                f"{batches.num_users} users for {config.intents.num_intents} intents", fix="lower train.intents"
            )
        torch.manual_seed(config.seed)
        self.config, self.batches, self.device, self.ranks = config, batches, device, ranks
        self.model = SequenceModel(config, data.num_items).to(device)
        resident = device.type == "cuda" and ranks.count == 1
        self.resident = ResidentData(batches, config, device) if resident else None
        if config.compile and not resident:
            where = "a CPU" if device.type == "cpu" else f"{ranks.count} of them"
            raise UserError(f"train.compile is for training on one GPU, not on {where}", fix="leave it off")
        self._losses = compiled(self.model.losses, config.batch_size) if config.compile else self.model.losses
        self.recorder = Recorder(device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True, capturable=resident
        )
        self.average = MovingAverage(self.model, config.averaging) if config.averaging else None
        self.best: dict[str, Tensor] = {}
        self.warm_start = warm_start
        origin = warm_start.digest if warm_start else None
        identity = json.dumps([to_dict(config), data.md5, device.type, ranks.count, origin], sort_keys=True)
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What training changes, by name."""
        return {"model": self.model} | ({"average": self.average} if self.average else {})

    def resume(self, checkpoint: Path) -> Progress:
        """Restore a cut-off run, or place weights and the centres that are to be learned and start."""
        restored = restore_checkpoint(checkpoint, self.fingerprint, self.modules, self.optimizer)
        self._require_the_same(0 if restored is None else restored[0].epoch, checkpoint)
        if restored is None:
            placed = self.warm_start is not None and self.warm_start.lay_over(self.model)
            if isinstance(self.model.intents, LearnedIntents) and not placed:
                self._place(self.model.intents, self.config.seed)
            return Progress()
        progress, self.best = restored
        if self.resident is not None and progress.room:
            self.resident.sizes = Sizes(*progress.room)
        logger.info("resuming after epoch %d from %s", progress.epoch, checkpoint)
        return progress

    def _require_the_same(self, epoch: int, checkpoint: Path) -> None:
        if self.ranks.count == 1:
            return
        epochs = gather_integers(torch.tensor([epoch], device=self.device))
        if int(epochs.min()) < int(epochs.max()):
            fix = "put the checkpoint on a file system that all nodes share"
            raise UserError("the ranks do not find the same checkpoint", where=checkpoint, fix=fix)

    def advance(self, progress: Progress, valid: EvaluationSet) -> None:
        """Train one epoch, validate if it is time, keep the best weights."""
        started = time.perf_counter()
        progress.epoch += 1
        row: dict[str, Any] = {"epoch": progress.epoch, **self._train_epoch(progress.epoch)}
        if self.resident is not None:
            progress.room = list(self.resident.sizes)
        if progress.epoch % self.config.eval_every == 0 or progress.epoch == self.config.epochs:
            model = self._candidate()
            metrics = validate(model, valid, self.ranks)
            row |= {f"valid_{name}": metrics[name] for name in (SELECTION_METRIC, "hr@20")}
            row |= {name: metrics[name] for name in ("effective_intents",) if name in metrics}
            if metrics[SELECTION_METRIC] > progress.best_score:
                progress.best_epoch, progress.best_score = progress.epoch, metrics[SELECTION_METRIC]
                self.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        row["seconds"] = round(time.perf_counter() - started, 3)
        progress.history.append(row)
        if self.ranks.leads:
            logger.info(_line(row, progress, self.config))

    def _candidate(self) -> SequenceModel:
        """The weights to validate: the last ones or their average."""
        if self.average is None:
            return self.model
        model = self.average.module
        if isinstance(model.intents, LearnedIntents):
            model.intents.renormalise()
        return model

    def _place(self, intents: Intents, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        sample = self.batches.sample(intents.points_per_center * self.config.intents.num_intents, generator)
        intents.initialise(self.model.pooled(sample), generator)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Take every step once; return the mean of each loss."""
        seed = self.config.seed * 1_000_003 + epoch
        if isinstance(self.model.intents, ClusteredIntents):
            self._place(self.model.intents, seed)
        if self.ranks.count > 1:
            copy_from_leader(self.model)
        # Ranks draw the same users, negatives and views, but drop out elements of their own.
        torch.manual_seed(seed + 7_919 * self.ranks.index)
        self.model.train()
        label, quiet = f"epoch {epoch}", not self.ranks.leads
        if self.resident is not None:
            counts = track(self._recorded_epoch(self.resident), total=len(self.resident), label=label)
            with self.recorder.running():
                return self._mean(self._recorded_step(self.resident, count) for count in counts)
        steps = self.batches.epoch(torch.Generator().manual_seed(seed), self.device)
        batches = track(steps, total=len(self.batches), label=label, quiet=quiet)
        return self._mean(self._step(batch) for batch in batches)

    def _recorded_epoch(self, resident: ResidentData) -> Iterator[int]:
        """Draw an epoch and yield the size of each step."""
        if resident.begin_epoch():
            self.recorder.forget()
        yield from resident.epoch()

    def _recorded_step(self, resident: ResidentData, count: int) -> dict[str, Tensor]:
        """Take a step that is assembled on the device."""
        losses = self.recorder.run(count, lambda: self._update(resident.next_batch(count)))
        self._follow()
        return losses

    def _step(self, batch: TrainingBatch) -> dict[str, Tensor]:
        losses = self._update(batch)
        self._follow()
        return losses

    def _update(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Move the weights; return the losses, their sum first."""
        losses = self._losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self.ranks.count > 1:
            average_gradients(self.model)
        self.optimizer.step()
        if isinstance(self.model.intents, LearnedIntents):
            self.model.intents.renormalise()
        return {"loss": total.detach(), **{name: loss.detach() for name, loss in losses.items()}}

    def _follow(self) -> None:
        if self.average is not None:
            self.average.follow(self.model)

    def _mean(self, steps: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Take the steps; return the mean of each loss over them and over ranks. The device is asked once an epoch.

        Summed as they come: thousands of small tensors, kept to the end, would keep the heap from being used again.
        """
        names: list[str] = []
        sums, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        for step in steps:
            names, count = list(step), count + 1
            sums = sums + torch.stack(list(step.values()))
        means = sums / count
        if self.ranks.count > 1:
            means = mean_over_ranks(means)
        return dict(zip(names, means.tolist(), strict=True))


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
