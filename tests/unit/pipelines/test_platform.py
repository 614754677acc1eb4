from pathlib import Path

import pytest

from elcrec.errors import UserError
from pipelines.platform import STEPS, load_platform

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "pipelines" / "platform.yaml"


def test_a_step_lies_over_the_defaults_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "platform.yaml"
    path.write_text("defaults: {cpu: '3', retries: 4}\nsteps:\n  train: {memory: 7Gi}\n", encoding="utf-8")
    platform = load_platform(path, {"claims": {"store": "mine"}})
    train, fetch = platform.step("train"), platform.step("fetch")
    assert (train.cpu, train.retries, train.memory) == ("3", 4, "7Gi")
    assert (fetch.cpu, fetch.retries, fetch.memory) == ("3", 4, "1Gi")
    assert platform.claims.store == "mine"


def test_the_shipped_file_names_steps_that_pipelines_have() -> None:
    assert set(load_platform(SHIPPED, {}).steps) == set(STEPS)


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
