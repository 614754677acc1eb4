"""`elcrec train` in a process of its own, as people and orchestrators call it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.raw_log import write_sequences
from tests.unit.training.helpers import ring_data

ROOT = Path(__file__).parents[3]
TINY = (
    "train.encoder={window: 8, hidden_size: 8, num_blocks: 1, hidden_dropout: 0.2, attention_dropout: 0.2}",
    "train.intents.num_intents=4",
    "train.batch_size=32",
    "train.epochs=2",
    "train.device=cpu",
)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = ring_data().sequences
    log = {f"u{index}": rows.row(index).tolist() for index in range(len(rows))}
    return write_sequences(log, tmp_path_factory.mktemp("rings"))


def _train(sequences: Path, out: Path, override: str, hash_seed: int) -> bytes:
    """The weights that a fresh process writes."""
    options = [part for setting in (*TINY, override) for part in ("--set", setting)]
    command = [sys.executable, "-m", "elcrec", "train", "--params", str(ROOT / "params.yaml"), *options]
    command += ["--sequences", str(sequences), "--out", str(out / "model"), "--checkpoint", str(out / "checkpoint")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("override", ["train.objective=elcrec", "train.next_item.loss=softmax"])
def test_two_processes_with_the_same_seed_write_the_same_bytes(sequences: Path, tmp_path: Path, override: str) -> None:
    first, again = (_train(sequences, tmp_path / str(run), override, run) for run in (1, 2))
    assert first == again
