"""A small data set with structure that a model can learn: after item i comes item i + 1, on one of a few rings."""

import numpy as np
import torch

from elcrec.config import EncoderConfig, IntentConfig, TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged
from elcrec.model.sequence_model import SequenceModel
from elcrec.training.data import TrainingData
from elcrec.training.distributed import ALONE
from elcrec.training.grouped_steps import GroupedSteps
from elcrec.training.item_intents import share_centers
from elcrec.training.objective import Objective
from elcrec.training.packed_steps import PackedSteps
from elcrec.training.step import Step

RING = 10


def ring_data(users: int = 120, rings: int = 4, seed: int = 0) -> SequenceData:
    generator = np.random.default_rng(seed)
    starts, ring = generator.integers(0, RING, users), generator.integers(0, rings, users)
    lengths = generator.integers(5, RING + 1, users)
    rows = [
        [1 + r * RING + (s + step) % RING for step in range(n)] for s, r, n in zip(starts, ring, lengths, strict=True)
    ]
    ends = lengths.astype(np.int32)
    return SequenceData(
        sequences=Ragged.from_rows(rows),
        train_end=ends - 2,
        targets={"valid": ends - 2, "test": ends - 1},
        num_items=rings * RING,
        md5="rings",
    )


def tiny_config(**changes: object) -> TrainConfig:
    defaults: dict[str, object] = {
        "encoder": EncoderConfig(window=8, hidden_size=8, num_blocks=1, hidden_dropout=0.2, attention_dropout=0.2),
        "intents": IntentConfig(num_intents=4),
        "batch_size": 32,
        "epochs": 2,
        "device": "cpu",
    }
    return TrainConfig(**(defaults | changes))


def new_model(data: SequenceData, config: TrainConfig) -> SequenceModel:
    """A model as a run has it before its first step, with its item table a sum if intents are of items."""
    model = SequenceModel(config.model, data.num_items)
    if config.model.intents == "items":
        share_centers(model, TrainingData(data, config), config.intents, seed=1)
    return model


def grouped_epoch(data: SequenceData, config: TrainConfig, seed: int = 0) -> list[Step]:
    """The steps of an epoch as a CPU takes them."""
    steps = GroupedSteps(TrainingData(data, config), config, Objective(config).needs, torch.device("cpu"), ALONE)
    return list(steps.epoch(seed))


def packed_steps(data: SequenceData, config: TrainConfig) -> PackedSteps:
    """Steps as a GPU takes them, on a CPU."""
    return PackedSteps(TrainingData(data, config), config, Objective(config).needs, torch.device("cpu"))


def packed_epoch(data: SequenceData, config: TrainConfig, seed: int = 0) -> list[Step]:
    """The steps of an epoch as a GPU takes them, on a CPU."""
    steps = packed_steps(data, config)
    torch.manual_seed(seed)
    return [steps.next_step(count) for count in steps.epoch(seed)]
