"""The place where a stage runs, and the place of its checkpoint."""

from pathlib import Path

import pytest

from components._execution import checkpoint_folder, stage_on
from elcrec.adapters.train_nodes import Owner


def test_a_checkpoint_is_found_again_by_a_step_with_the_same_inputs_alone(tmp_path: Path) -> None:
    with checkpoint_folder(str(tmp_path), "config", "rows") as first, checkpoint_folder("", "config") as scratch:
        assert first.is_relative_to(tmp_path)
        assert not scratch.is_relative_to(tmp_path)
    with (
        checkpoint_folder(str(tmp_path), "config", "rows") as again,
        checkpoint_folder(str(tmp_path), "config") as other,
    ):
        assert again == first != other


def test_nodes_belong_to_the_pod_that_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"image": "i", "workspace_claim": "c"}'
    assert stage_on(text).keywords["nodes"].owner is None, "a pod that has no name is none"
    monkeypatch.setenv("KFP_POD_NAME", "elcrec-training-abc-1")
    monkeypatch.setenv("KFP_POD_UID", "5a1b")
    assert stage_on(text).keywords["nodes"].owner == Owner(name="elcrec-training-abc-1", uid="5a1b")
