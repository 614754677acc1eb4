"""The whole pipeline runs here through kfp.local, and the gate decides whether push runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elcrec.adapters.store import open_store
from elcrec.artifacts import read_json
from elcrec.config import Config
from pipelines.cli import main


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    tiny_params(folder)
    return folder


def run_pipeline(workspace: Path, **overrides: object) -> Path:
    """Run the pipeline; return the folder of the run."""
    root = workspace / "runs"
    earlier = set(root.glob("[!.]*"))
    places = ["--root", str(root), "--store", str(workspace / "store")]
    options = ["--params", str(workspace / "params.yaml"), "--overrides", json.dumps(overrides)]
    assert main(["run-local", "--cache", *places, *options]) == 0
    (run,) = set(root.glob("[!.]*")) - earlier
    return run


def champion(workspace: Path) -> str | None:
    found = open_store(workspace / "store").registry.champion(Config().push.model_name)
    return found.version if found else None


def test_a_good_model_is_pushed(workspace: Path) -> None:
    run = run_pipeline(workspace)
    assert (run / "gate" / "reason").read_text(encoding="utf-8").startswith("# Push accepted")
    assert read_json(run / "push" / "pushed" / "gate.json")["accepted"]
    assert champion(workspace) == "1"
    for task, page in (("validate", "report"), ("train", "curves"), ("evaluate", "report"), ("evaluate", "intents")):
        assert (run / task / page).read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_a_model_under_its_floor_is_not(workspace: Path) -> None:
    before = champion(workspace)
    run = run_pipeline(workspace, push={"gate": {"floors": {"ndcg@20": 1.1}}})
    reason = (run / "gate" / "reason").read_text(encoding="utf-8")
    assert reason.startswith("# Push refused")
    assert "| floor ndcg@20 |" in reason
    assert not (run / "push").exists()
    assert champion(workspace) == before
