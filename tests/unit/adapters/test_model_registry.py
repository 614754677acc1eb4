import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.artifacts import write_json
from elcrec.errors import UserError
from elcrec.serving.bundle import BundleSource, describe_bundle, verify_bundle, write_bundle
from elcrec.serving.ports import TrainingRecord

NO_TAGS: Mapping[str, str] = {}
TRAINING = TrainingRecord(parameters={"train.seed": "1"}, epochs=[{"epoch": 1, "loss": 2.0}])


@pytest.fixture
def folder(empty_registry: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_registry, tmp_path / "mlflow"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path, "first")


def make_bundle(root: Path, content: str) -> Path:
    source = BundleSource(model=root / content, sequences=root / content, evaluation=root / content)
    (root / content).mkdir()
    for path in source.files().values():
        path.write_text(content)
    write_json(root / content / "config.json", {"sequences_md5": "0"})
    write_json(root / content / "split.json", {"md5": "0"})
    write_bundle(
        source, describe_bundle(source, name="m", feature_service="s", feature_schema="d"), root / f"bundle-{content}"
    )
    return root / f"bundle-{content}"


def test_before_any_push_there_is_no_champion(folder: Path) -> None:
    assert MlflowRegistry(folder).champion("m") is None


def test_a_registered_version_is_champion_only_once_named(folder: Path, bundle: Path) -> None:
    registry = MlflowRegistry(folder)

    version = registry.register("m", bundle, {"ndcg@20": 0.1}, {"split": "x"})
    assert registry.champion("m") is None
    registry.set_champion("m", version)

    champion = MlflowRegistry(folder).champion("m")
    assert champion is not None
    assert champion.version == version
    assert verify_bundle(champion.bundle) == verify_bundle(bundle)


def registered(folder: Path, tmp_path: Path, number: int) -> tuple[MlflowRegistry, list[str]]:
    registry = MlflowRegistry(folder)
    bundles = [make_bundle(tmp_path, f"model-{place}") for place in range(number)]
    return registry, [registry.register("m", each, {}, NO_TAGS) for each in bundles]


def challenger_of(folder: Path) -> str | None:
    found = MlflowRegistry(folder).challenger("m")
    return None if found is None else found.version


def test_a_challenger_stays_beside_the_champion_until_it_becomes_the_champion(folder: Path, tmp_path: Path) -> None:
    registry, (one, two, three) = registered(folder, tmp_path, 3)
    registry.set_champion("m", one)
    assert challenger_of(folder) is None

    registry.set_challenger("m", two)
    registry.set_challenger("m", three)
    assert challenger_of(folder) == three
    registry.set_champion("m", two)
    assert challenger_of(folder) == three
    registry.set_champion("m", three)

    champion = MlflowRegistry(folder).champion("m")
    assert champion is not None
    assert (champion.version, challenger_of(folder)) == (three, None)


def test_a_rejected_challenger_is_removed_with_a_reason_until_it_is_pardoned(folder: Path, tmp_path: Path) -> None:
    registry, (one, two) = registered(folder, tmp_path, 2)
    registry.set_champion("m", one)
    registry.set_challenger("m", two)

    registry.reject("m", two, "its click-through rate is lower")

    assert challenger_of(folder) is None
    tags = registry._client.get_model_version("m", two).tags
    assert tags["elcrec.rejected.reason"] == "its click-through rate is lower"
    assert registry.versions("m") == [one]
    registry.pardon("m", two)
    assert not [tag for tag in registry._client.get_model_version("m", two).tags if "rejected" in tag]
    assert registry.versions("m") == [two, one]


def test_the_same_bundle_has_one_version_and_another_bundle_the_next(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry(folder)

    versions = [registry.register("m", bundle, {}, NO_TAGS) for _ in range(2)]
    other = registry.register("m", make_bundle(tmp_path, "second"), {}, NO_TAGS)

    assert versions == ["1", "1"]
    assert other == "2"


def test_an_upload_that_was_cut_off_is_completed_in_its_own_run(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(folder)
    client = registry._client
    with monkeypatch.context() as patch:
        patch.setattr(client, "set_terminated", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            registry.register("m", bundle, {}, NO_TAGS, TRAINING)

    version = registry.register("m", bundle, {"ndcg@20": 0.5}, NO_TAGS, TRAINING)

    runs = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert version == "1"
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].data.metrics == {"ndcg_at_20": 0.5, "training/loss": 2.0}


def test_a_run_has_the_parameters_and_a_point_of_each_curve_an_epoch(folder: Path, bundle: Path) -> None:
    registry = MlflowRegistry(folder)
    names = [f"train.option_{number}" for number in range(150)]
    epochs = [{"epoch": number, "loss": 1 / number, "valid_ndcg@20": number / 1000} for number in range(1, 601)]
    training = TrainingRecord(parameters=dict.fromkeys(names, "0.1") | {"long": "x" * 1000}, epochs=epochs)

    registry.register("m", bundle, {"ndcg@20": 0.5}, NO_TAGS, training)

    client = registry._client
    (run,) = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert run.data.params == dict.fromkeys(names, "0.1") | {"long": "x" * 500}
    assert run.data.metrics == {"ndcg_at_20": 0.5, "training/loss": 1 / 600, "training/valid_ndcg_at_20": 0.6}
    curve = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(point.step, point.value) for point in curve] == [(number, 1 / number) for number in range(1, 601)]


def test_a_moved_folder_serves_and_takes_new_versions(folder: Path, bundle: Path, tmp_path: Path) -> None:
    registry = MlflowRegistry(folder)
    registry.set_champion("m", registry.register("m", bundle, {}, NO_TAGS))
    moved = folder.rename(tmp_path / "moved")

    registry = MlflowRegistry(moved)
    champion = registry.champion("m")
    assert champion is not None
    verify_bundle(champion.bundle)
    registry.set_champion("m", registry.register("m", make_bundle(tmp_path, "second"), {}, NO_TAGS))

    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == "2"
    verify_bundle(champion.bundle)
    assert not folder.exists()


def test_a_server_s_bundle_is_downloaded_once(folder: Path, bundle: Path, tmp_path: Path) -> None:
    local = MlflowRegistry(folder)
    local.set_champion("m", local.register("m", bundle, {}, NO_TAGS))
    remote = MlflowRegistry(tmp_path / "cache", tracking_uri=f"sqlite:///{folder}/mlflow.db")

    first = remote.champion("m")
    shutil.rmtree(folder / "artifacts")
    second = remote.champion("m")

    assert first == second
    assert first is not None
    assert first.bundle.is_relative_to(tmp_path / "cache")
    verify_bundle(first.bundle)


def test_a_lost_database_is_not_replaced_if_there_are_bundles(folder: Path, bundle: Path) -> None:
    registry = MlflowRegistry(folder)
    registry.register("m", bundle, {}, NO_TAGS)
    (folder / "mlflow.db").unlink()

    for reader in (registry, MlflowRegistry(folder)):
        with pytest.raises(UserError, match=r"mlflow\.db: the registry's database is missing; restore it"):
            reader.champion("m")
    assert not (folder / "mlflow.db").exists()


def test_reading_a_missing_folder_does_not_create_it(folder: Path, bundle: Path) -> None:
    registry = MlflowRegistry(folder)
    registry.set_champion("m", registry.register("m", bundle, {}, NO_TAGS))
    kept = folder.rename(folder.with_name("kept"))

    assert registry.champion("m") is None
    assert registry.versions("m") == []
    assert registry.rejected("m", "digest") is None
    assert not folder.exists()

    shutil.copytree(kept, folder)
    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == "1"


def test_a_replaced_database_is_reopened(folder: Path, bundle: Path, tmp_path: Path) -> None:
    registry = MlflowRegistry(folder)
    registry.set_champion("m", registry.register("m", bundle, {}, NO_TAGS))
    first = registry.champion("m")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    MlflowRegistry(other).set_champion(
        "m", MlflowRegistry(other).register("m", make_bundle(tmp_path, "second"), {}, NO_TAGS)
    )

    (other / "mlflow.db").rename(folder / "mlflow.db")
    second = registry.champion("m")

    assert first is not None
    assert second is not None
    assert (first.version, second.version) == ("1", "2")
    assert registry.versions("m") == ["2", "1"]


def test_a_bundle_that_is_gone_from_the_server_is_a_version_without_a_bundle(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    local = MlflowRegistry(folder)
    local.set_champion("m", local.register("m", bundle, {}, NO_TAGS))
    shutil.rmtree(folder / "artifacts")

    found = MlflowRegistry(tmp_path / "cache", tracking_uri=f"sqlite:///{folder}/mlflow.db").champion("m")

    assert found is not None
    with pytest.raises(UserError, match="no such file"):
        verify_bundle(found.bundle)


def test_an_unknown_version_cannot_be_champion(folder: Path, bundle: Path) -> None:
    registry = MlflowRegistry(folder)
    registry.register("m", bundle, {}, NO_TAGS)

    with pytest.raises(UserError, match="MLflow"):
        registry.set_champion("m", "99")


def test_the_console_stays_clean(tmp_path: Path, bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    registry = MlflowRegistry(tmp_path / "fresh")
    registry.set_champion("m", registry.register("m", bundle, {}, NO_TAGS))

    assert capfd.readouterr() == ("", "")
