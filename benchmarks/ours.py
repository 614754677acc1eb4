"""Calls of our engine for the benchmarks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from unittest import mock

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.meter import Clock
from elcrec.config import TrainConfig
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.sequence_model import SequenceModel
from elcrec.training import loop

T = TypeVar("T")


def train(data: SequenceData, config: TrainConfig, clock: Clock, scratch: Path) -> None:
    """Run `elcrec.training.loop.fit`, the loop of `elcrec train`, for one epoch per limit of the clock.

    Raises:
        RuntimeError: the loop did not take its steps through `elcrec.progress.track`.
    """
    epochs = len(clock.limits)
    with _watched(clock):
        loop.fit(data, msgspec.structs.replace(config, epochs=epochs, patience=epochs), scratch)
    if len(clock.epochs) != epochs:
        raise RuntimeError(f"the clock saw {len(clock.epochs)} of {epochs} epochs; benchmarks/ours.py needs adapting")


@contextmanager
def _watched(clock: Clock) -> Iterator[None]:
    """Let the clock measure every step that the loop tracks."""

    def watch(steps: Iterable[T], *, total: int, **_: object) -> Iterator[T]:
        clock.whole = total
        return clock.watch(steps)

    with mock.patch.object(loop, "track", watch):
        yield


def rank(model: SequenceModel, asked: EvaluationSet) -> npt.NDArray[np.int32]:
    """Encode the histories and rank the targets among all items, with the twenty best items."""
    encoded = model.encode(asked.histories, intents=False)
    vectors, items = encoded.vectors, model.item_vectors()
    return rank_targets(vectors, items, asked.histories, asked.target_items, top_k=20).ranks


def new_model(data: SequenceData, config: TrainConfig, device: torch.device) -> SequenceModel:
    """Return an untrained model; the cost of ranking does not depend on its weights."""
    torch.manual_seed(config.seed)
    return SequenceModel(config.model, data.num_items).to(device).eval()


def with_one_validation_target(data: SequenceData) -> SequenceData:
    """Keep only one validation target, so that the cost of validation is negligible."""
    valid = data.targets["valid"]
    first = np.flatnonzero(valid >= 0)[0]
    only = np.where(np.arange(len(valid)) == first, valid, -1).astype(np.int32)
    return replace(data, targets={**data.targets, "valid": only})
