import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from elcrec.errors import UserError
from pipelines.cli import PIPELINES
from pipelines.platform import STEPS, load_platform
from tests.support.packages import elcrec_pipeline, load_package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "pipelines" / "platform.yaml"


def test_a_step_overrides_the_defaults_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "platform.yaml"
    path.write_text("defaults: {cpu: '3', retries: 4}\nsteps:\n  train: {memory: 7Gi}\n", encoding="utf-8")
    platform = load_platform(path, {"claims": {"store": "mine"}})
    train, fetch = platform.step("train"), platform.step("fetch")
    assert (train.cpu, train.retries, train.memory) == ("3", 4, "7Gi")
    assert (fetch.cpu, fetch.retries, fetch.memory) == ("3", 4, "4Gi")
    assert platform.claims.store == "mine"


def executors(package: Path) -> dict[str, dict[str, Any]]:
    """The executors of a package by step; kfp numbers a component's second task."""
    document = load_package(package)[0]
    found = document["deploymentSpec"]["executors"]
    return {re.sub(r"-\d+$", "", name.removeprefix("exec-")).replace("-", "_"): found[name] for name in found}


def test_the_steps_are_those_of_the_compiled_packages_and_the_file_reaches_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    platform = tmp_path / "platform.yaml"
    platform.write_text("defaults: {memory: 7Gi}\n", encoding="utf-8")
    steps = {}
    for name in PIPELINES:
        package = tmp_path / f"{name}.yaml"
        assert elcrec_pipeline(["compile", name, "--platform", str(platform), "--output", str(package)]) == 0
        steps |= executors(package)
    assert set(steps) == set(STEPS)
    assert {step["container"]["resources"]["resourceMemoryLimit"] for step in steps.values()} == {"7Gi"}


def test_the_shipped_file_names_steps_that_pipelines_have() -> None:
    assert set(yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["steps"]) <= set(STEPS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": {"tran": {}}}, "no step 'tran'"),
        ({"steps": {"train": {"memory": "lots"}}}, "memory"),
        ({"steps": {"train": {"cpus": "1"}}}, "cpus"),
        ({"secrets": {"mine": {"keys": ["KEY"], "steps": ["pull"]}}}, "no step 'pull'"),
        ({"secrets": {"mine": {"keys": ["KEY"]}}}, "steps"),
        ({"secrets": {"mine": ["KEY"]}}, "secrets"),
        ({"trainjob": {"namespace": "other"}}, "namespace"),
        ({"trainjob": {"environment": {"PET_NNODES": "2"}}}, "PET_NNODES is set by the runtime"),
        ({"nodes": 2}, "nodes > 1 needs claims.workspace"),
        ({"accelerator": {"count": -1}}, "accelerator.count"),
        ({"image": 7}, "image"),
    ],
)
def test_what_cannot_be_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_platform(SHIPPED, changes)
    assert "platform.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)
