"""The whole pipeline runs here through kfp.local, and the gate decides whether push runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    tiny_params(folder)
    return folder


def run_pipeline(workspace: Path, store: Path, **overrides: object) -> Path:
    """Run the pipeline; return the folder of the run."""
    root = workspace / "runs"
    earlier = set(root.glob("[!.]*"))
    arguments = ["--params", str(workspace / "params.yaml"), "--root", str(root), "--store", str(store)]
    assert main(["run-local", "--cache", *arguments, "--overrides", json.dumps(overrides)]) == 0
    (run,) = set(root.glob("[!.]*")) - earlier
    return run


def test_a_good_model_is_pushed(workspace: Path) -> None:
    store = workspace / "good"
    run = run_pipeline(workspace, store)
    assert (run / "gate" / "reason").read_text(encoding="utf-8").startswith("**accepted**")
    assert json.loads((run / "push" / "pushed" / "gate.json").read_text(encoding="utf-8"))["accepted"]
    assert (run / "push" / "pushed" / "bundle").is_dir()
    assert (run / "evaluate" / "report").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype")


def test_a_model_under_its_floor_is_not(workspace: Path) -> None:
    store = workspace / "bad"
    run = run_pipeline(workspace, store, push={"gate": {"floors": {"ndcg@20": 1.1}}})
    assert (run / "gate" / "reason").read_text(encoding="utf-8").startswith("**refused**")
    assert not (run / "push").exists()
