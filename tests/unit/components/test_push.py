"""Pushes to the same store exclude each other, also on a cluster."""

import fcntl
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components._sections import write_section
from components.push import push
from elcrec.config import PushConfig
from elcrec.stages import push as stage


def test_the_component_holds_the_lock_of_the_store_while_it_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "store" / ".push.lock"

    def pushed(_: object, *inputs: Path, **__: object) -> dict[str, Any]:
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {"accepted": False, "reason": "none"}

    monkeypatch.setattr(stage, "push", pushed)
    monkeypatch.setattr("elcrec.adapters.store.Store.registry", None)
    monkeypatch.setattr("elcrec.adapters.store.Store.features", None)
    ports: dict[str, Any] = {
        name: dsl.Artifact(name=name, uri=str(tmp_path / name)) for name in ("model", "sequences", "evaluation")
    }
    made, metrics = dsl.Artifact(name="pushed", uri=str(tmp_path / "pushed")), dsl.Metrics(name="metrics", uri="m")

    config = write_section(PushConfig())
    push.python_func(config=config, store=str(tmp_path / "store"), pushed=made, metrics=metrics, **ports)

    assert made.metadata["decision"] == "refused"
    assert not lock.exists(), "the lock goes away with the push"
