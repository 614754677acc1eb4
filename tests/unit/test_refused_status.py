"""A refused model ends `elcrec push` and `elcrec run` with a status of its own, where one is asked for."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from elcrec import cli
from elcrec.adapters import store
from elcrec.config import parse_config
from elcrec.errors import UserError
from elcrec.stages import push as push_stage

PARAMS = str(Path(__file__).parents[2] / "params.yaml")


class _Store:
    registry = features = signer = None

    def pushing(self) -> "_Store":
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(("accepted", "option", "status"), [(True, 3, 0), (False, 3, 3), (False, 0, 0)])
@pytest.mark.parametrize("command", ["push", "run"])
def test_a_refusal_has_the_configured_exit_status(
    command: str, accepted: bool, option: int, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any, **__: Any) -> Generator[str, None, bool]:
        yield "said"
        return accepted

    monkeypatch.setattr("elcrec.run.run", run)
    monkeypatch.setattr(store, "open_store", lambda _: _Store())
    monkeypatch.setattr(push_stage, "push", lambda *_, **__: {"accepted": accepted})
    assert cli.main([command, "--params", PARAMS, "--set", f"push.refused_status={option}"]) == status


@pytest.mark.parametrize("status", [1, 2, 130, 143])
def test_the_status_of_a_fault_is_not_taken(status: int) -> None:
    with pytest.raises(UserError, match="take another, such as 3"):
        parse_config({"push": {"refused_status": status}})
