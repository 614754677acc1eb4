"""`elcrec run` leads from a log to recommendations, or reports why not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny_params(folder)
    return folder


def run(workspace: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "elcrec", "run", "--workdir", "work", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_ends_with_metrics_the_report_and_ten_recommendations_for_a_user_with_their_intent(workspace: Path) -> None:
    lines = run(workspace)
    assert any(line.split()[:1] == ["ndcg@20"] for line in lines)
    (report,) = (line.split()[1] for line in lines if line.startswith("report "))
    assert (workspace / report).is_file()
    (intent,) = (line.split()[1] for line in lines if line.startswith("intent "))
    assert intent.isdigit()
    assert [line.split()[0] for line in lines[-10:]] == [str(rank) for rank in range(1, 11)]


def test_a_refused_model_is_not_served_and_the_reason_is_reported(workspace: Path) -> None:
    assert run(workspace, "--set", "push.gate.floors.ndcg@20=1")[-1].startswith("not pushed, so nothing is recommended")


@pytest.mark.skipif(not find_spec("pyspark") or not shutil.which("java"), reason="needs the extra spark, and Java")
def test_on_spark_the_whole_run_has_the_same_log_and_the_same_model(workspace: Path) -> None:
    run(workspace)
    options = ["engine.kind=spark", "engine.threads=2", "engine.memory_mb=768"]
    run(workspace, "--workdir", "spark", *(word for option in options for word in ("--set", option)))
    for name in ("validated/interactions.parquet", "sequences/sequences.parquet", "model/model.safetensors"):
        assert (workspace / "spark" / name).read_bytes() == (workspace / "work" / name).read_bytes(), name
