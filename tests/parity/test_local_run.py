"""The pipelines run on this machine through kfp.local, with the expected outcomes."""

import json
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from elcrec import cli
from elcrec.adapters.store import open_store
from elcrec.artifacts import code_revision, read_json
from elcrec.config import Config
from elcrec.serving.bundle import read_manifest
from elcrec.training.checkpoint import FILE
from pipelines.local import NO_IMAGE
from tests.support.checkpoints import killing_a_training
from tests.support.packages import elcrec_pipeline

ROOT = Path(__file__).parents[2]
EPOCHS_BEFORE = 3
"""Epochs that a train step has done when it is killed."""
EVERY_OUTPUT = 20
"""Artifacts of a training run that pushes nothing."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    tiny_params(folder)
    platform = yaml.safe_load((ROOT / "pipelines" / "platform.yaml").read_text(encoding="utf-8"))
    (folder / "platform.yaml").write_text(yaml.safe_dump(platform | {"backoff_seconds": 1}), encoding="utf-8")
    return folder


def run_pipeline(workspace: Path, pipeline: str = "training", *arguments: str, status: int = 0) -> Path:
    """Run a pipeline; return the folder of the run."""
    root = workspace / "runs"
    earlier = set(root.glob("elcrec-*"))
    places = ["--root", str(root), "--store", str(workspace / "store")]
    places += ["--params", str(workspace / "params.yaml"), "--platform", str(workspace / "platform.yaml")]
    options = [part for argument in arguments for part in ("--param", argument)]
    assert elcrec_pipeline(["run", pipeline, *places, *options]) == status
    (run,) = set(root.glob("elcrec-*")) - earlier
    return run


def overrides(**sections: object) -> str:
    return f"overrides={json.dumps(sections)}"


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def champion(workspace: Path) -> str | None:
    found = open_store(workspace / "store").registry.champion(Config().push.model_name)
    return found.version if found else None


def progress_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed without the seconds, with spaces for its columns."""
    out, complaint = capsys.readouterr()
    assert complaint == ""
    assert "\x1b" not in out
    return [re.sub(r"\d+ s ", "", " ".join(line.split())) for line in out.splitlines()]


def test_a_good_model_is_pushed_and_the_outcome_reports_it(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_pipeline(workspace)
    said = progress_of(capsys)
    assert f"log: {run / 'log.txt'}" in said
    ran = [line.removeprefix("RUNNING ") for line in said if line.startswith("RUNNING ")]
    assert [line for line in said if not line.startswith("log: ")] == [
        *(f"{state} {step}" for step in ran for state in ("RUNNING", "SUCCEEDED")),
        "elcrec-training: SUCCEEDED",
        f"outputs: {run}",
    ]
    # kfp may start steps with the same dependencies in any order.
    assert [sorted(ran[:2]), ran[2:6], sorted(ran[6:8]), ran[8:]] == [
        ["configure", "resolve"],
        ["fetch", "validate", "require-valid", "sequences"],
        ["baseline", "train"],
        ["evaluate", "gate", "push", "outcome"],
    ]
    assert text(run / "gate" / "reason").startswith("# Push accepted")
    assert read_json(run / "push" / "pushed" / "gate.json")["accepted"]
    assert champion(workspace) == "1"
    for task, page in (("validate", "report"), ("train", "curves"), ("evaluate", "report"), ("evaluate", "intents")):
        assert text(run / task / page).lower().startswith("<!doctype html>")
    told = f"**elcrec-training succeeded, pushed** ({run.name}): elcrec version 1\n"
    assert text(run / "outcome" / "summary") == told


def require_origins(run: Path) -> None:
    """Check that every output but metrics says what it was made from."""
    facts = {"image": NO_IMAGE, "git_revision": code_revision() or "unknown"}
    data_md5 = read_json(run / "fetch" / "raw" / "source.json")["md5"]
    outputs = 0
    for path in run.glob("*/executor_output.json"):
        for name, artifacts in read_json(path).get("artifacts", {}).items():
            (metadata,) = [artifact["metadata"] for artifact in artifacts["artifacts"]]
            outputs += 1
            if name == "metrics":
                assert all(isinstance(value, float) for value in metadata.values()), (
                    "numbers to compare, and no lineage"
                )
                continue
            assert facts.items() <= metadata.items(), name
            assert metadata["params_md5"]
            assert metadata.get("data_md5") == (None if name == "summary" else data_md5), name
            assert {"md5", "params"} <= set(metadata), name
    assert outputs == EVERY_OUTPUT


def test_a_model_under_its_floor_is_not_pushed_the_run_succeeds_and_all_outputs_say_what_they_were_made_from(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = champion(workspace)
    run = run_pipeline(workspace, "training", "min_ndcg=1", "seed=5")
    reason = text(run / "gate" / "reason")
    assert reason.startswith("# Push refused")
    assert "| floor ndcg@20 |" in reason
    assert not (run / "push").exists()
    assert "SKIPPED accepted" in progress_of(capsys)
    assert champion(workspace) == before
    summary = text(run / "outcome" / "summary")
    assert summary.startswith("**elcrec-training succeeded, not pushed** (")
    assert "ndcg@20" in summary
    assert f"version {before} still serves" in summary
    require_origins(run)


def test_a_refused_log_fails_the_run_and_the_outcome_reports_it(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_pipeline(workspace, "training", overrides(validate={"min_rows": 1_000_000}), status=1)
    assert text(run / "validate" / "report").lower().startswith("<!doctype html>")
    assert not read_json(run / "validate" / "validated" / "validation.json")["passed"]
    assert not (run / "sequences").exists()
    said = progress_of(capsys)
    (failed,) = [line for line in said if line.startswith("FAILED require-valid: ")]
    assert "validation failed: accepted rows; see " in failed
    assert said[-2:] == ["elcrec-training: FAILED", f"outputs: {run}"]
    assert "Traceback" not in text(run / "log.txt")
    summary = text(run / "outcome" / "summary")
    assert summary.startswith("**elcrec-training failed** (")
    assert "): step require_valid: the log: validation failed: accepted rows" in summary


def test_a_wrong_input_fails_at_once_though_the_backend_tries_every_failure_again(workspace: Path) -> None:
    """kfp.local tries again as 2.16 does, whatever was wrong: the second attempt ends before it does anything."""
    run = run_pipeline(workspace, "recommendation", "model=nobody", status=1)
    log, wrong = text(run / "log.txt"), "no champion of model 'nobody'; run `elcrec push` first"
    assert log.count(f"elcrec: error: {wrong}") == 2
    assert log.count("not tried again, because it would fail in the same way") == 1
    assert f"): step recommend: {wrong}" in text(run / "outcome" / "summary")


def test_the_best_of_a_sweep_by_validation_goes_to_the_gate(workspace: Path) -> None:
    run = run_pipeline(workspace, "sweep", 'grid={"seed": [3, 4], "learning_rate": [0.001]}', "max_regression=1")
    members = [read_json(path) for path in run.rglob("train*/model/config.json")]
    swept = [member for member in members if member["train"]["objective"] == "elcrec"]
    assert sorted(member["train"]["seed"] for member in swept) == [3, 4]
    best = max(swept, key=lambda member: member["valid"]["ndcg@20"])
    assert read_json(run / "select" / "model" / "config.json")["train"]["seed"] == best["train"]["seed"]
    assert text(run / "gate" / "reason").startswith("# Push accepted")


def test_a_retraining_starts_from_the_champion(workspace: Path) -> None:
    registry = open_store(workspace / "store").registry
    digest = read_manifest(registry.champion(Config().push.model_name).bundle).digest
    run = run_pipeline(workspace, "retraining", "seed=8", "max_regression=1")
    assert text(run / "gate" / "reason").startswith("# Push accepted")
    trained = {read_json(path)["train"]["objective"]: read_json(path) for path in run.rglob("train*/model/config.json")}
    assert trained["elcrec"]["warm_start"] == digest
    assert "warm_start" not in trained["sasrec"]


def test_many_users_are_recommended_to_at_once(workspace: Path) -> None:
    run = run_pipeline(workspace, "recommendation", 'users=["u0003", "nobody"]', "k=4")
    written = run / "recommend" / "recommendations" / "recommendations.parquet"
    rows = pq.read_table(written).to_pylist()
    assert [(row["user_id"], row["source"]) for row in rows] == [("u0003", "model"), ("nobody", "popular")]
    assert {len(row["item_ids"]) for row in rows} == {4}
    (workspace / "users.txt").write_text("u0003\nnobody\n", encoding="utf-8")
    paths = {"store": workspace / "store", "users": workspace / "users.txt", "out": workspace / "by_command.parquet"}
    options = [f"--{name}={path}" for name, path in paths.items()]
    assert cli.main(["recommend-all", "--k=4", f"--params={workspace / 'params.yaml'}", *options]) == 0
    assert paths["out"].read_bytes() == written.read_bytes()


def kill_the_train_step() -> bool:
    killed = False
    for child in psutil.Process(os.getpid()).children(recursive=True):
        # A process may end, or be a zombie without a command line, by the time it is asked.
        with suppress(psutil.NoSuchProcess):
            if "train" in child.cmdline():
                child.send_signal(signal.SIGKILL)
                killed = True
    return killed


def test_a_killed_train_step_is_retried_and_resumes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = workspace / "runs" / "workspace"
    with killing_a_training(checkpoints, epochs=EPOCHS_BEFORE, kill=kill_the_train_step) as killed:
        run = run_pipeline(workspace, "training", "epochs=60", "min_ndcg=1", overrides(train={"patience": 60}))
    assert killed.is_set()
    (resumed,) = re.findall(r"resuming after epoch (\d+)", text(run / "log.txt"))
    assert int(resumed) >= EPOCHS_BEFORE
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    (failed,) = [words for words in said if words[0] == "FAILED"]
    states = [words[0] for words in said if words[3:4] and words[3].rstrip(":") == failed[3].rstrip(":")]
    assert states == ["RUNNING", "FAILED", "RUNNING", "SUCCEEDED"]
    models = [read_json(path) for path in run.rglob("train*/model/config.json")]
    assert {model["epochs"] for model in models} == {60}
    assert not list((workspace / "runs" / "workspace").rglob(FILE))
