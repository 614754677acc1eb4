import shutil
from pathlib import Path
from typing import Any

import pytest

from elcrec.config import GateConfig, PushConfig
from elcrec.errors import UserError
from elcrec.stages.push import push
from elcrec.stages.rollback import rollback
from tests.support.push_inputs import Inputs, add_model
from tests.support.serving import NAME, Installation

CONFIG = PushConfig(gate=GateConfig(max_regression=1.0))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, Inputs]:
    """Three versions, the third of which is the champion, and what it was made from."""
    installation = Installation.make(tmp_path_factory.mktemp("rollback"))
    installation.push_another(seed=1)
    newest = add_model(installation.inputs.sequences.parent, installation.inputs.sequences, model_seed=2)
    installation.push(newest)
    return installation, newest


@pytest.fixture
def installation(three: tuple[Installation, Inputs], tmp_path: Path) -> Installation:
    shutil.copytree(three[0].folder, tmp_path / "store")
    return Installation(folder=tmp_path / "store", inputs=three[0].inputs, features=three[0].features)


def back(installation: Installation, version: str | None = None) -> dict[str, Any]:
    return rollback(NAME, version, registry=installation.registry, features=installation.store)


def pushed(installation: Installation, inputs: Inputs) -> dict[str, Any]:
    out = installation.folder.parent / "push"
    return push(CONFIG, *inputs.paths, out, registry=installation.registry, features=installation.store)


def champion(installation: Installation) -> str:
    found = installation.registry.champion(NAME)
    assert found is not None
    return found.version


def test_the_version_before_serves_and_a_retried_push_does_not_undo_it(
    installation: Installation, three: tuple[Installation, Inputs]
) -> None:
    assert back(installation) == {"champion": "2", "rejected": "3"}

    outcome = pushed(installation, three[1])

    assert not outcome["accepted"]
    assert outcome["reason"] == "version 3 was rejected; version 2 still serves"
    assert "| version 3 was rejected |  |  | **no** |" in (installation.folder.parent / "push/gate.md").read_text()
    assert champion(installation) == "2"


def test_rolled_back_twice_it_is_the_one_before_that(installation: Installation) -> None:
    back(installation)

    assert back(installation) == {"champion": "1", "rejected": "2"}
    with pytest.raises(UserError, match="no version before its champion"):
        back(installation)
    assert champion(installation) == "1"


def test_a_version_by_name_serves_and_is_pardoned(
    installation: Installation, three: tuple[Installation, Inputs]
) -> None:
    back(installation)

    assert back(installation, "3") == {"champion": "3", "rejected": "2"}
    assert back(installation, "3") == {"champion": "3", "rejected": None}
    assert pushed(installation, three[1])["accepted"]
    assert installation.registry.versions(NAME) == ["3", "1"]


def test_what_cannot_be_served_is_not_rolled_back_to(installation: Installation) -> None:
    found = installation.registry.version(NAME, "2")
    assert found is not None
    shutil.rmtree(found.bundle)

    with pytest.raises(UserError, match="no such file"):
        back(installation)
    with pytest.raises(UserError, match="has no version '9'"):
        back(installation, "9")
    assert champion(installation) == "3"
    assert installation.registry.versions(NAME) == ["3", "2", "1"]


def test_a_push_that_was_under_way_when_its_version_was_rolled_back_does_not_make_it_champion(
    installation: Installation, three: tuple[Installation, Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(installation.store)
    publish = store.publish

    def rolled_back_meanwhile(self: Any, *arguments: Any, **named: Any) -> dict[str, int]:
        published = publish(self, *arguments, **named)
        back(installation)
        return published

    monkeypatch.setattr(store, "publish", rolled_back_meanwhile)

    with pytest.raises(UserError, match="version 3 was rejected while it was pushed"):
        pushed(installation, three[1])
    assert champion(installation) == "2"
