"""Component train: the processes in which it trains."""

import logging
from pathlib import Path

import pytest
from kfp import dsl

from components._sections import write_section
from components.train import train
from elcrec.artifacts import read_json
from elcrec.config import SyntheticConfig
from tests.support.raw_log import sample_log, write_sequences
from tests.unit.training.helpers import tiny_config


@pytest.mark.slow
def test_two_accelerators_are_two_processes_whose_log_and_model_are_returned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="elcrec")
    sequences = write_sequences(sample_log(SyntheticConfig(users=200, items=60, intents=4)), tmp_path / "data")
    model = dsl.Model(name="model", uri=str(tmp_path / "model"))
    curves = dsl.HTML(name="curves", uri=str(tmp_path / "curves"))
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    train.python_func(
        config=write_section(tiny_config(epochs=2)),
        store="",
        workspace="",
        warm_start="",
        cluster="",
        sequences=dsl.Dataset(name="sequences", uri=str(sequences)),
        model=model,
        curves=curves,
        metrics=metrics,
        processes=2,
    )
    assert "CPU, 2 processes" in Path(curves.path).read_text(encoding="utf-8")
    (settings,) = [message for message in caplog.messages if message.startswith("settings: ")]
    assert {"seed=1", "encoder.num_blocks=1"} <= set(settings.removeprefix("settings: ").split(", "))
    assert sum("epoch 2/2" in message for message in caplog.messages) == 1, "the leader alone reports"
    facts = read_json(Path(model.path, "config.json"))
    assert metrics.metadata["epochs"] == facts["epochs"] == 2
    assert metrics.metadata["valid_ndcg@20"] == facts["valid"]["ndcg@20"]
    assert model.metadata["file"] == "model.safetensors"
