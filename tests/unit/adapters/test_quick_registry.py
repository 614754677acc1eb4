"""The registry without MLflow: the same answers and database as with MLflow, or else MLflow is used."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from elcrec.adapters.checked_services import QuickCheck, note_checked
from elcrec.adapters.model_registry import MlflowRegistry
from elcrec.adapters.quick_registry import LAYOUT, QuickRegistry
from elcrec.adapters.store import Store
from elcrec.errors import UserError
from elcrec.serving.bundle import read_manifest
from elcrec.serving.ports import ModelRegistry
from tests.support.serving import NAME, ROOT, Installation

SCRIPT = """
import sys
from elcrec import cli
status = cli.main(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"mlflow", "feast", "torch", "pandas", "sqlalchemy"}))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Version 2 is the champion, version 3 the challenger."""
    installation = Installation.make(tmp_path_factory.mktemp("quick"))
    installation.push_another(seed=1)
    installation.push_another(seed=2, alias="challenger")
    return installation


@pytest.fixture
def folders(pushed: Installation, tmp_path: Path) -> tuple[Path, Path]:
    return tuple(shutil.copytree(pushed.folder / "mlflow", tmp_path / name) for name in ("one", "other"))  # type: ignore[return-value]


def no_mlflow() -> ModelRegistry:
    raise AssertionError("the full registry was opened")


def quick(folder: Path) -> QuickRegistry:
    found = QuickRegistry.open(folder, no_mlflow)
    assert found is not None
    return found


def state(registry: ModelRegistry, folder: Path, digests: list[str]) -> dict[str, Any]:
    def seen(found: Any) -> Any:
        return None if found is None else (found.name, found.version, found.bundle.relative_to(folder))

    return {
        "champion": seen(registry.champion(NAME)),
        "challenger": seen(registry.challenger(NAME)),
        "versions": registry.versions(NAME),
        "each": [seen(registry.version(NAME, version)) for version in ("1", "2", "3", "4")],
        "rejected": [registry.rejected(NAME, digest) for digest in digests],
        "another": (registry.champion("other"), registry.versions("other")),
    }


def reject_twice(registry: ModelRegistry) -> None:
    for reason in ("worse", ""):
        registry.reject(NAME, "1", reason)


def pardon(registry: ModelRegistry) -> None:
    registry.reject(NAME, "1", "worse")
    registry.pardon(NAME, "1")


STEPS: dict[str, Callable[[ModelRegistry], None]] = {
    "nothing": lambda registry: None,
    "another champion": lambda registry: registry.set_champion(NAME, "1"),
    "the challenger promoted": lambda registry: registry.set_champion(NAME, "3"),
    "the challenger rejected": lambda registry: registry.reject(NAME, "3", "worse"),
    "another challenger": lambda registry: registry.set_challenger(NAME, "1"),
    "rejected twice": reject_twice,
    "pardoned": pardon,
}


@pytest.mark.parametrize("step", STEPS)
def test_both_registries_always_give_the_same_answers(
    folders: tuple[Path, Path], pushed: Installation, step: str
) -> None:
    versions = [pushed.registry.version(NAME, version) for version in ("1", "2", "3")]
    digests = [read_manifest(each.bundle).digest for each in versions if each is not None]
    STEPS[step](quick(folders[0]))
    STEPS[step](MlflowRegistry(folders[1]))

    found = [state(of(folder), folder, digests) for folder in folders for of in (quick, MlflowRegistry)]

    assert found == [found[0]] * 4
    tags = [
        {key for version in "123" for key in MlflowRegistry(folder)._client.get_model_version(NAME, version).tags}
        for folder in folders
    ]
    assert tags[0] == tags[1]


def test_the_tables_have_the_layout_that_it_was_written_for(folders: tuple[Path, Path]) -> None:
    with closing(sqlite3.connect(folders[0] / "mlflow.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(LAYOUT,)]


def test_tables_of_another_layout_and_a_folder_without_any_are_left_to_mlflow(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    before = quick(folders[0])
    with closing(sqlite3.connect(folders[0] / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
        connection.commit()

    with pytest.raises(UserError, match="the layout of the registry"):
        before.champion(NAME)
    assert QuickRegistry.open(folders[0], no_mlflow) is None
    assert QuickRegistry.open(tmp_path / "nothing", no_mlflow) is None
    assert not (tmp_path / "nothing").exists()


def test_an_mlflow_server_is_accessed_through_mlflow(folders: tuple[Path, Path], tmp_path: Path) -> None:
    there = {"folder": folders[0].parent, "features_repository": ROOT / "features"}
    folders[0].rename(folders[0].parent / "mlflow")

    assert isinstance(Store(**there, tracking_uri=None).quick_registry, QuickRegistry)  # type: ignore[arg-type]
    assert isinstance(Store(**there, tracking_uri="http://127.0.0.1:9").quick_registry, MlflowRegistry)  # type: ignore[arg-type]


def test_an_unknown_version_is_refused_and_changes_nothing(folders: tuple[Path, Path]) -> None:
    registry = quick(folders[0])

    for change in (registry.set_champion, registry.set_challenger, registry.reject, registry.pardon):
        with pytest.raises(UserError, match="has no version '9'"):
            change(NAME, "9")
    champion = registry.champion(NAME)
    assert champion is not None
    assert champion.version == "2"


def test_a_rollback_imports_neither_mlflow_nor_feast(pushed: Installation, tmp_path: Path) -> None:
    shutil.copytree(pushed.folder, tmp_path / "store")
    # The note of the original says nothing of a copy, whose sources Feast leads elsewhere: so it is asked once.
    copied = Installation(folder=tmp_path / "store", inputs=pushed.inputs, features=pushed.features)
    copied.store.check("elcrec_v1")
    command = [sys.executable, "-c", SCRIPT, "rollback", "--store", str(copied.folder)]

    done = subprocess.run([*command, "--params", str(ROOT / "params.yaml")], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["champion", "1", "rejected", "2", "[]"]
    champion = copied.registry.champion(NAME)
    assert champion is not None
    assert champion.version == "1"


class Asked(Exception):  # noqa: N818 - a sign, not a mistake
    """The full store was asked."""


def ask_feast() -> Any:
    raise Asked


def test_the_note_of_a_service_is_valid_until_a_definition_or_schema_changes(
    pushed: Installation, tmp_path: Path
) -> None:
    folder = shutil.copytree(pushed.folder / "feast", tmp_path / "feast")
    check, schema = QuickCheck(folder, ask_feast), pushed.store.schema("elcrec_v1")

    check.check("elcrec_v1", schema)
    for service, wanted in (("elcrec_v1", "another"), ("elcrec_v1", None), ("elcrec_v9", schema)):
        with pytest.raises(Asked):
            check.check(service, wanted)
    with closing(sqlite3.connect(folder / "registry.db")) as connection:
        connection.execute("UPDATE feature_services SET feature_service_proto = zeroblob(3)")
        connection.commit()
    with pytest.raises(Asked):
        check.check("elcrec_v1", schema)
    note_checked(folder, folder / "registry.db", {"elcrec_v1": schema})
    check.check("elcrec_v1", schema)


def test_without_a_note_or_a_registry_feast_is_asked(pushed: Installation, tmp_path: Path) -> None:
    folder = shutil.copytree(pushed.folder / "feast", tmp_path / "feast")
    (folder / "checked.json").write_text("[")
    for broken in (folder, tmp_path / "nowhere"):
        with pytest.raises(Asked):
            QuickCheck(broken, ask_feast).check("elcrec_v1", pushed.store.schema("elcrec_v1"))
