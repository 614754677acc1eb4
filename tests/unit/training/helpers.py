"""A small data set with structure that a model can learn: after item i comes item i + 1, on one of a few rings."""

import numpy as np

from elcrec.config import EncoderConfig, IntentConfig, TrainConfig
from elcrec.data.dataset import SequenceData
from elcrec.data.ragged import Ragged

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
