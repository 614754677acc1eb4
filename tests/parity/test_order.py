"""dvc.yaml and the compiled pipeline run the same verbs in the same order of dependence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from elcrec import cli
from pipelines.cli import main

Edges = set[tuple[str, str]]
KUBEFLOW_ONLY = {"configure", "gate"}
SAME_VERB = {"train-2": "baseline", "condition-1": "push"}


@pytest.fixture
def stages(root: Path) -> dict[str, Any]:
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["stages"]
    return found


@pytest.fixture
def tasks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(root)
    output = tmp_path / "package.yaml"
    assert main(["compile", "--output", str(output)]) == 0
    found: dict[str, Any] = yaml.safe_load(output.read_text(encoding="utf-8"))["root"]["dag"]["tasks"]
    return found


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


def pipeline_edges(tasks: dict[str, Any]) -> Edges:
    edges = {
        (SAME_VERB.get(producer, producer), SAME_VERB.get(name, name))
        for name, task in tasks.items()
        for source in task.get("inputs", {}).get("artifacts", {}).values()
        if (producer := source["taskOutputArtifact"]["producerTask"])
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
