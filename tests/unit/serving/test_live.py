import shutil
from pathlib import Path
from queue import Queue

import pytest

from elcrec.artifacts import SCHEMA_VERSION, write_json
from elcrec.config import RulesConfig, SearchConfig, to_dict
from elcrec.errors import UserError
from elcrec.ranking.files import SEARCH
from elcrec.ranking.item_facts import ItemFacts
from elcrec.serving.live import Live, Watcher
from elcrec.serving.recommender import Query
from elcrec.serving.telemetry import Telemetry
from tests.support.push_inputs import add_model, make_inputs
from tests.support.serving import NAME, Installation


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Two versions of which the second is the champion."""
    installation = Installation.make(tmp_path_factory.mktemp("live"))
    installation.push_another(seed=1)
    return installation


@pytest.fixture
def installation(pushed: Installation, tmp_path: Path) -> Installation:
    shutil.copytree(pushed.folder, tmp_path / "store")
    return Installation(folder=tmp_path / "store", inputs=pushed.inputs, features=pushed.features)


def live(installation: Installation) -> Live:
    return Live(NAME, installation.registry, installation.store, Telemetry())


def bundle_of(installation: Installation, version: str) -> Path:
    found = installation.registry.version(NAME, version)
    assert found is not None
    return found.bundle


def test_a_champion_with_a_missing_bundle_is_replaced_by_the_previous_version(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(bundle_of(installation, "2"))

    found = live(installation)

    assert found.current.version == "1"
    assert found.problem is not None
    assert "version 2, the champion, cannot be served" in found.problem
    assert "version 1 serves instead" in caplog.text
    found.refresh()
    assert found.current.version == "1"
    assert found.problem is not None


def test_two_servers_with_the_same_seed_explore_equally(installation: Installation) -> None:
    def answers(seed: int) -> list[list[str]]:
        given = (NAME, installation.registry, installation.store, Telemetry())
        recommender = Live(*given, seed=seed).current.recommender
        recommender.rules = RulesConfig(exploration=0.5, candidates=12)
        recommender.use_facts(ItemFacts.nothing(len(recommender.catalogue)))
        return [one.item_ids for one in recommender.recommend([Query(history=["item-1"], k=4)] * 8)]

    assert answers(1) == answers(1) != answers(2)


def test_without_a_valid_version_the_champion_s_fault_is_reported(installation: Installation) -> None:
    for version in ("1", "2"):
        (bundle_of(installation, version) / "model.safetensors").write_bytes(b"")

    with pytest.raises(UserError, match=r"changed: model\.safetensors"):
        live(installation)


def test_a_new_registry_with_another_first_version_is_loaded(installation: Installation, tmp_path: Path) -> None:
    shutil.rmtree(bundle_of(installation, "2"))
    found = live(installation)
    assert found.current.version == "1"
    before = found.current.recommender.manifest.digest

    anew = Installation(
        folder=tmp_path / "anew", inputs=make_inputs(tmp_path / "inputs", model_seed=9), features=installation.features
    )
    anew.push(anew.inputs)
    for half in ("mlflow", "feast"):
        (installation.folder / half).rename(tmp_path / f"old-{half}")
        (anew.folder / half).rename(installation.folder / half)
    found.refresh()

    assert found.current.version == "1"
    assert found.current.recommender.manifest.digest != before
    assert found.problem is None


def test_a_champion_that_was_deleted_is_a_problem_and_serves_on(installation: Installation) -> None:
    found = live(installation)
    installation.registry._client.delete_registered_model_alias(NAME, "champion")

    found.refresh()

    assert found.current.version == "2"
    assert found.problem == "the registry has no champion of model 'elcrec'"


def test_a_model_carries_its_search_and_the_server_reports_it(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry()
    found = Live(NAME, installation.registry, installation.store, telemetry)
    assert found.current.recommender.index is None
    assert b'elcrec_search_info{kind="exact"} 1.0' in telemetry.page()
    inputs = add_model(installation.folder.parent, installation.inputs.sequences, model_seed=5)
    search = to_dict(SearchConfig(kind="approximate", probes=2))
    write_json(inputs.evaluation / SEARCH, {"schema_version": SCHEMA_VERSION, "search": search})

    with caplog.at_level("INFO"):
        installation.push(inputs)
        found.refresh()

    assert found.current.recommender.index is not None
    assert b'elcrec_search_info{kind="approximate"} 1.0' in telemetry.page()
    assert b'elcrec_search_info{kind="exact"} 0.0' in telemetry.page()
    said = [record.fields["search"] for record in caplog.records if hasattr(record, "fields")]
    assert said[-1] == "approximate, 2 of 3 parts"


def test_a_fault_of_one_poll_is_told_and_does_not_end_the_following(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, polls = live(installation), Queue[int]()

    def fail() -> None:
        polls.put(1)
        raise KeyError("price")

    monkeypatch.setattr(found, "refresh", fail)
    watcher = Watcher(found, 0.01)
    watcher.start()
    for _ in range(3):
        polls.get(timeout=10)
    watcher.stop()
    watcher.join(timeout=10)
    assert found.problem is not None
    assert "KeyError('price')" in found.problem
