"""Small real inputs of a push: sequences, an untrained model, and its evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from elcrec.artifacts import md5_of, read_json, write_json
from elcrec.config import EncoderConfig, IntentConfig, TrainConfig
from elcrec.data.dataset import load_sequences, load_user_ids
from elcrec.evaluation.metrics import mean_metrics
from elcrec.evaluation.provenance import mark_model
from elcrec.evaluation.ranking import rank_targets
from elcrec.model.io import load_model, save_model
from elcrec.model.sequence_model import SequenceModel
from elcrec.serving.bundle import BundleSource, describe_bundle, write_bundle
from tests.support.additions import know_at_random

TIME = pa.timestamp("us", tz="UTC")
SECOND = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Inputs:
    model: Path
    sequences: Path
    evaluation: Path

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.model, self.sequences, self.evaluation


def make_inputs(
    root: Path,
    *,
    model_seed: int = 0,
    users: int = 24,
    items: int = 15,
    prefix: str = "item-",
    time: str = "order",
    split: Mapping[str, Any] = MappingProxyType({}),
) -> Inputs:
    """Times are those of a benchmark log: seconds after 1970-01-01; `time` says whether that is meant.

    `split` is what split.json says besides.
    """
    sequences = make_sequences(root / "sequences", users=users, items=items, prefix=prefix, time=time)
    path = sequences / "split.json"
    write_json(path, read_json(path) | split)
    return add_model(root, sequences, model_seed=model_seed)


def make_sequences(folder: Path, *, users: int, items: int, prefix: str, time: str = "order") -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(users)
    rows = [random.permutation(items)[: random.integers(4, 10)] + 1 for _ in range(users)]
    times = [[(place + 1) * SECOND for place in range(len(row))] for row in rows]
    ends = np.array([len(row) for row in rows], np.int32)
    user_ids = pa.array([f"user-{user}" for user in range(users)])
    pq.write_table(
        pa.table(
            {
                "user_id": user_ids,
                "items": pa.array([row.tolist() for row in rows], pa.list_(pa.int32())),
                "timestamps": pa.array(times, pa.list_(TIME)),
                "train_end": ends - 2,
                "valid_index": ends - 2,
                "test_index": ends - 1,
            }
        ),
        folder / "sequences.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "user_id": user_ids,
                "item_ids": pa.array([[f"{prefix}{item}" for item in row] for row in rows]),
                "event_times": pa.array(times, pa.list_(TIME)),
                "event_timestamp": pa.array([row[-1] for row in times], TIME),
            }
        ),
        folder / "histories.parquet",
    )
    index = np.arange(1, items + 1, dtype=np.int32)
    flat = np.concatenate(rows)
    trained = np.concatenate([row[:-2] for row in rows])
    pq.write_table(
        pa.table(
            {
                "item_index": index,
                "item_id": [f"{prefix}{item}" for item in index],
                "count": np.bincount(trained, minlength=items + 1)[1:],
                "total": np.bincount(flat, minlength=items + 1)[1:],
                "event_timestamp": pa.array([SECOND] * items, TIME),
            }
        ),
        folder / "items.parquet",
    )
    md5 = md5_of(folder / "sequences.parquet")
    split = {"schema_version": 1, "split": "leave_one_out", "num_users": users, "num_items": items, "md5": md5}
    write_json(folder / "split.json", {**split, "time": time})
    return folder


def add_model(root: Path, sequences: Path, *, model_seed: int) -> Inputs:
    """Write an untrained model for `sequences`, with neighbours at random, and evaluate it for real."""
    data = load_sequences(sequences)
    model, evaluation = root / f"model-{model_seed}", root / f"evaluation-{model_seed}"
    model.mkdir(parents=True)
    evaluation.mkdir()
    torch.manual_seed(model_seed)
    config = TrainConfig(
        encoder=EncoderConfig(window=8, hidden_size=8, num_blocks=1, num_heads=2),
        intents=IntentConfig(num_intents=3),
    )
    drawn = SequenceModel(config.model, data.num_items)
    know_at_random(drawn)
    save_model(drawn, model, config, sequences_md5=data.md5)
    test, loaded = data.evaluation("test"), load_model(model)
    vectors, add = loaded.encode(test.histories).vectors, loaded.adder(test.histories)
    ranking = rank_targets(vectors, loaded.item_vectors(), test.histories, test.target_items, add=add)
    users = load_user_ids(sequences).take(pa.array(test.users))
    table = pa.table({"user_id": users, "target": test.target_items, "rank": ranking.ranks})
    pq.write_table(mark_model(table, model), evaluation / "ranks.parquet")
    write_json(evaluation / "metrics.json", mean_metrics(ranking.ranks))
    typical = [{"intent": intent, "top_items": [{"item_id": f"typical-{intent}"}]} for intent in range(2)]
    write_json(evaluation / "intents.json", {"intents": typical})
    (evaluation / "model_card.md").write_text("# Model card\n", encoding="utf-8")
    return Inputs(model=model, sequences=sequences, evaluation=evaluation)


def bundle_of(inputs: Inputs, folder: Path) -> Path:
    source = BundleSource(model=inputs.model, sequences=inputs.sequences, evaluation=inputs.evaluation)
    write_bundle(source, describe_bundle(source, name="m", feature_service="s", feature_schema="d"), folder)
    return folder
