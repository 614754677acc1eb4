"""Real processes over gloo: `torchrun … -m elcrec train` follows the run of one process."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from elcrec.artifacts import write_json
from elcrec.config import parse_config
from elcrec.stages.train import train
from elcrec.training.checkpoint import FILE
from tests.unit.training.helpers import ring_data

pytestmark = pytest.mark.slow

LOSSES = ("loss", "next_item", "sequence", "intent", "cluster", "valid_ndcg@20")
# Without dropout nothing but the order of summation tells one rank from two.
EXACT = {"encoder": {"window": 8, "hidden_size": 16, "num_blocks": 1, "hidden_dropout": 0, "attention_dropout": 0}}


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, data = tmp_path_factory.mktemp("sequences"), ring_data(200)
    users = [f"u{user}" for user in range(data.num_users)]
    items = pa.ListArray.from_arrays(data.sequences.offsets.astype(np.int32), data.sequences.values)
    table = {"user_id": users, "items": items, "train_end": data.train_end}
    table |= {f"{split}_index": position for split, position in data.targets.items()}
    pq.write_table(pa.table(table), folder / "sequences.parquet")
    write_json(folder / "split.json", {"num_items": data.num_items, "md5": data.md5})
    return folder


def _params(settings: dict[str, object]) -> dict[str, object]:
    defaults = {"intents": {"num_intents": 4}, "batch_size": 32, "epochs": 3, "device": "cpu", **EXACT}
    return {"train": defaults | settings}


def _start(sequences: Path, folder: Path, **settings: object) -> subprocess.Popen[str]:
    """Start two ranks."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(_params(settings)), encoding="utf-8")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    paths = ["--sequences", sequences, "--out", folder / "model", "--checkpoint", folder / "checkpoint"]
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, "elcrec", "train", *map(str, paths)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _train(sequences: Path, folder: Path, **settings: object) -> tuple[str, str]:
    """Run two ranks to their end; return what they printed and logged."""
    process = _start(sequences, folder, **settings)
    output, log = process.communicate(timeout=180)
    assert process.returncode == 0, log
    return output, log


def _history(folder: Path) -> dict[str, list[float]]:
    with (folder / "model" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row.get(name)] for name in LOSSES}


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "elcrec"},
        {
            "objective": "elcrec",
            "intents": {"num_intents": 4, "fusion": "concat"},
            "next_item": {"loss": "softmax"},
        },
        {"objective": "iclrec", "next_item": {"loss": "sampled_softmax", "samples": 64}, "item_updates": "lazy"},
        {"objective": "elcrec", "padding": "encoded"},
        {
            "objective": "elcrec2",
            "intents": {"num_intents": 4, "narrower": [8], "spread": 0.5},
            "next_item": {"loss": "softmax"},
            "neighbours": {"kept": 3},
            "counts": {"followers": 2, "popularity": True},
        },
        {"objective": "sasrec+sequence", "next_item": {"loss": "softmax", "prefixes": True}, "padding": "ignored"},
    ],
    ids=str,
)
def test_two_ranks_follow_the_losses_and_weights_of_one(
    sequences: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    _train(sequences, pair, **settings)
    train(parse_config(_params(settings)).train, sequences, alone / "model", checkpoint=alone / "checkpoint")
    expected, found = _history(alone), _history(pair)
    for name in LOSSES:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=1e-5, err_msg=name)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (pair, alone))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=5e-3, err_msg=name)


def test_two_ranks_killed_and_started_again_end_where_undisturbed_ones_do(sequences: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = {"encoder": {"window": 8, "hidden_size": 16, "num_blocks": 1}, "epochs": 40, "patience": 40}
    output, log = _train(sequences, whole, **settings)
    assert output.count("best_epoch") == log.count("epoch 1/40") == 1, "the leader alone reports"
    assert "CPU, 2 processes" in (whole / "model" / "training.html").read_text(encoding="utf-8")
    assert not list((whole / "checkpoint").glob("*")), "a finished run leaves no checkpoint"
    process, checkpoint = _start(sequences, cut, **settings), cut / "checkpoint" / FILE
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(workers[0]), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    _, log = _train(sequences, cut, **settings)
    assert "resuming after epoch" in log
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (cut, whole))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
