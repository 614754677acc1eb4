"""SIGKILL between two epochs, then the same command again: the model equals that of an undisturbed run.

Kills anywhere else are those of `python -m benchmarks.kills`, and of test_surroundings.py in short.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARAMS = {
    "fetch": {"dataset": "sample", "synthetic": {"users": 300, "items": 60, "intents": 4}},
    "train": {
        "encoder": {"window": 10, "hidden_size": 16, "num_blocks": 1},
        "intents": {"num_intents": 4},
        "epochs": 6,
        "device": "cpu",
    },
    "evaluate": {"bootstrap": 20},
}
# Files that differ between two runs of the same command: durations, and pages with their time of writing.
VOLATILE = {"measured.json"}
VOLATILE_SUFFIXES = {".html"}

COMMANDS = {
    "fetch": [],
    "validate": ["--raw", "raw", "--accepted", "accepted"],
    "sequences": ["--interactions", "validated"],
    "train": ["--sequences", "sequences", "--checkpoint", "checkpoint"],
}
OUTPUTS = {"fetch": "raw", "validate": "validated", "sequences": "sequences", "train": "model"}


def _start(stage: str, workdir: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "elcrec", stage, *COMMANDS[stage], "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ELCREC_GIT_REVISION": "one"}  # a commit may come meanwhile
    return subprocess.Popen(command, cwd=workdir, env=environment, stderr=subprocess.PIPE)


def _run(stage: str, workdir: Path, out: str) -> None:
    process = _start(stage, workdir, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    (workdir / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    for stage, out in OUTPUTS.items():
        _run(stage, workdir, out)
    return workdir


def _first_epochs_are_done(workdir: Path) -> Callable[[], bool]:
    return (workdir / "checkpoint" / "checkpoint.safetensors").exists


def _kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    while process.poll() is None and not ready():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the stage ended before it could be killed"


def test_a_killed_training_run_again_equals_an_undisturbed_one(undisturbed: Path) -> None:
    _kill_when(_start("train", undisturbed, "killed"), _first_epochs_are_done(undisturbed))
    assert not (undisturbed / "killed").exists(), "half an output"
    _run("train", undisturbed, "killed")
    assert _content(undisturbed / "killed") == _content(undisturbed / "model")
    assert not list(undisturbed.glob(".*.partial")), "scratch left behind"


def _content(folder: Path) -> dict[str, object]:
    kept = [path for path in sorted(folder.iterdir()) if path.suffix not in VOLATILE_SUFFIXES]
    return {path.name: None if path.name in VOLATILE else path.read_bytes() for path in kept}
