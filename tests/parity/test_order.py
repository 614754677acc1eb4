"""dvc.yaml and the compiled pipeline run the same verbs in the same order of dependence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from elcrec import cli
from tests.support.packages import elcrec_pipeline, load_package

Edges = set[tuple[str, str]]
KUBEFLOW_ONLY = {"configure", "resolve", "require-valid", "gate", "outcome"}
SAME_VERB = {"train-2": "baseline"}


@pytest.fixture
def stages(root: Path) -> dict[str, Any]:
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["stages"]
    return found


@pytest.fixture
def tasks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(root)
    output = tmp_path / "package.yaml"
    assert elcrec_pipeline(["compile", "--output", str(output)]) == 0
    document = load_package(output)[0]
    dags = [document["root"], *document["components"].values()]
    found = {name: task for dag in dags if "dag" in dag for name, task in dag["dag"]["tasks"].items()}
    return {name: task for name, task in found.items() if not name.startswith(("exit-handler", "condition"))}


def outputs(stage: dict[str, Any]) -> list[str]:
    return [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]


def dvc_edges(stages: dict[str, Any]) -> Edges:
    made = {out: name for name, stage in stages.items() for out in outputs(stage)}
    return {
        (producer, name)
        for name, stage in stages.items()
        for dep in stage["deps"]
        for out, producer in made.items()
        if dep == out or dep.startswith(f"{out}/")
    }


def producer_of(source: dict[str, Any]) -> str:
    """The task whose output an input is; a condition passes it on as `pipelinechannel--TASK-OUTPUT`."""
    if "taskOutputArtifact" in source:
        return source["taskOutputArtifact"]["producerTask"]
    passed_on = source["componentInputArtifact"].removeprefix("pipelinechannel--")
    return passed_on.rpartition("-")[0]


def pipeline_edges(tasks: dict[str, Any]) -> Edges:
    edges = {
        (SAME_VERB.get(producer, producer), SAME_VERB.get(name, name))
        for name, task in tasks.items()
        for source in task.get("inputs", {}).get("artifacts", {}).values()
        if (producer := producer_of(source))
    }
    return {edge for edge in edges if not KUBEFLOW_ONLY & set(edge)}


def test_both_run_the_same_verbs_in_the_same_order(stages: dict[str, Any], tasks: dict[str, Any]) -> None:
    verbs = {SAME_VERB.get(name, name) for name in tasks} - KUBEFLOW_ONLY
    assert verbs == set(stages)
    assert pipeline_edges(tasks) == dvc_edges(stages)


def test_every_command_parses_and_writes_what_its_stage_declares(stages: dict[str, Any]) -> None:
    for name, stage in stages.items():
        program, *arguments = stage["cmd"].split()
        options = cli._parser().parse_args(arguments)
        assert program == "elcrec"
        assert arguments[0] == ("train" if name == "baseline" else name)
        assert [str(options.out)] == outputs(stage)


def test_state_that_outlives_a_run_is_no_output(stages: dict[str, Any]) -> None:
    everything = {out for stage in stages.values() for out in outputs(stage)}
    assert not everything & {"artifacts/store", "artifacts/checkpoints", "artifacts/accepted"}
