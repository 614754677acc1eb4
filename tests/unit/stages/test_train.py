"""`elcrec train` in a process of its own, as people and orchestrators call it, and the page that it writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elcrec.artifacts import read_json
from elcrec.config import NextItemConfig
from elcrec.pages import render
from elcrec.stages import train as stage
from elcrec.stages.train import train
from tests.support.raw_log import write_sequences
from tests.unit.training.helpers import ring_data, tiny_config

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


def _train_here(sequences: Path, out: Path, **changes: object) -> Path:
    train(tiny_config(**changes), sequences, out / "model", checkpoint=out / "checkpoint")
    return out / "model"


def test_the_page_is_written_beside_the_history(sequences: Path, tmp_path: Path) -> None:
    model = _train_here(sequences, tmp_path)
    page = (model / "training.html").read_text(encoding="utf-8")
    assert read_json(sequences / "split.json")["md5"] in page
    assert "CPU, 1 process" in page


def test_the_same_inputs_give_the_same_model_wherever_it_is_trained(sequences: Path, tmp_path: Path) -> None:
    first, again = (_train_here(sequences, tmp_path / name) for name in ("here", "der Ort"))
    assert (first / "checksums.json").read_bytes() == (again / "checksums.json").read_bytes()
    assert {"model.safetensors", "config.json", "history.csv"} == {*read_json(first / "checksums.json")["files"]}
    assert len(read_json(first / "measured.json")["epoch_seconds"]) == tiny_config().epochs


def test_without_the_extra_the_model_is_trained_and_one_line_says_what_is_missing(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(render, "find_spec", lambda _: None)
    model = _train_here(sequences, tmp_path)
    assert sorted(path.name for path in model.iterdir()) == [
        "checksums.json",
        "config.json",
        "history.csv",
        "measured.json",
        "model.safetensors",
    ]
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "elcrec[report]" in line


def test_scoring_every_item_of_a_large_catalogue_is_warned_of(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "_MANY_ITEMS", 39)
    _train_here(sequences, tmp_path / "bce")
    assert "sampled_softmax" not in caplog.text
    _train_here(sequences, tmp_path / "softmax", next_item=NextItemConfig(loss="softmax"))
    assert "every step scores all 40 items; train.next_item.loss=sampled_softmax" in caplog.text


def test_validation_uses_a_sample_of_users_if_configured(
    sequences: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = []
    for users in (None, 7):
        model = _train_here(sequences, tmp_path / str(users), valid_users=users)
        found.append(read_json(model / "config.json")["valid"]["hr@20"])
    assert "validating on 7 of 120 users" in caplog.text
    assert found[1] * 7 == pytest.approx(round(found[1] * 7))
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize("override", ["train.objective=elcrec", "train.next_item.loss=softmax"])
def test_two_processes_with_the_same_seed_write_the_same_bytes(sequences: Path, tmp_path: Path, override: str) -> None:
    first, again = (_train(sequences, tmp_path / str(run), override, run) for run in (1, 2))
    assert first == again
