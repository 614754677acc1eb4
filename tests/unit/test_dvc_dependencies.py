"""dvc.yaml names the code that each stage runs: the command's imports, followed through src/elcrec."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from tests.support.imports import Import, imports_in, imports_of

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
COMMANDS = SOURCE / "elcrec" / "cli.py"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

WITHOUT_EFFECT = {
    "src/elcrec/errors.py": "words of an error; a stage that fails writes nothing",
    "src/elcrec/faults.py": "words of an error, as well",
    "src/elcrec/locks.py": "keeps a second process out; no output depends on it",
    "src/elcrec/progress.py": "shows how far a stage is",
}
"""What stages import and no output depends on. The command line that calls them is left out as well."""

FACES = {"elcrec.config"}
"""Packages that are imported as one: their own file names what their modules hold."""

REWORKED = {"src/elcrec/model", "src/elcrec/training"}
"""Always named whole: what a stage runs of them changes with every new objective or loss."""


def file_of(module: str) -> Path | None:
    """A module of ours, or the face of a package that has one; the own files of other packages hold no code."""
    path = SOURCE / module.replace(".", "/")
    places = [path.with_suffix(".py"), *([path / "__init__.py"] if module in FACES else [])]
    return next((place for place in places if place.is_file()), None)


def files_of(imports: Iterable[Import]) -> set[Path]:
    names = {name for module, taken in imports for name in (module, *(f"{module}.{each}" for each in taken))}
    return {path for name in names if (path := file_of(name))}


def data_of(path: Path) -> set[Path]:
    """Files beside a module, such as templates, whose names stand in its code, and those that they name in turn."""
    files = (each for each in path.parent.rglob("*") if each.is_file() and each.suffix not in {".py", ".pyc"})
    beside = {each.name: each for each in files}
    found, texts = set[Path](), [path.read_text(encoding="utf-8")]
    while texts:
        text = texts.pop()
        new = {each for name, each in beside.items() if f'"{name}"' in text} - found
        found |= new
        texts += [each.read_text(encoding="utf-8") for each in new]
    return found


def reached(stage: str) -> set[str]:
    """Paths of the files that a stage's command runs or reads."""
    command = STAGES[stage]["cmd"].split()[1]
    (body,) = (node for node in ast.parse(COMMANDS.read_text()).body if getattr(node, "name", None) == f"_{command}")
    waiting, found = files_of(imports_in(body, where=COMMANDS)), set[Path]()
    while waiting:
        path = waiting.pop()
        found |= {path} | data_of(path)
        waiting |= files_of(imports_of(path)) - found
    return {path.relative_to(ROOT).as_posix() for path in found}


def needed(stage: str) -> set[str]:
    return reached(stage) - set(WITHOUT_EFFECT)


def named(stage: str) -> list[str]:
    return [path for path in STAGES[stage]["deps"] if path.startswith("src/")]


def covers(entry: str, path: str) -> bool:
    return path == entry or path.startswith(f"{entry}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_all_the_code_that_it_runs(stage: str) -> None:
    missing = [path for path in sorted(needed(stage)) if not any(covers(entry, path) for entry in named(stage))]
    assert missing == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_no_code_that_it_does_not_run(stage: str) -> None:
    code = needed(stage)
    unused = [entry for entry in named(stage) if not any(covers(entry, path) for path in code)]
    twice = [path for path in named(stage) for entry in named(stage) if path != entry and covers(entry, path)]
    assert (unused, twice) == ([], [])


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_is_named_where_a_stage_runs_most_of_it(stage: str) -> None:
    code = needed(stage)
    for folder in {entry for entry in named(stage) if (ROOT / entry).is_dir()} - REWORKED:
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py") if path.stem != "__init__"}
        assert len(files & code) > len(files) / 2, f"{folder}: name the files that run"


def test_what_has_no_effect_is_imported_all_the_same() -> None:
    assert set(WITHOUT_EFFECT) <= {path for stage in STAGES for path in reached(stage)}


def test_packages_hold_no_code_of_their_own() -> None:
    for path in (SOURCE / "elcrec").rglob("__init__.py"):
        package = ".".join(path.parent.relative_to(SOURCE).parts)
        code = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.Expr)]
        if package in FACES:
            code = [node for node in code if not is_import_from(node, package)]
        assert [ast.unparse(node).partition(" =")[0] for node in code] in ([], ["__version__"], ["__all__"]), path


def is_import_from(node: ast.AST, package: str) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}.")


def test_a_package_with_a_face_is_imported_by_it_alone() -> None:
    for path in (SOURCE / "elcrec").rglob("*.py"):
        for package in FACES - {".".join(path.parent.relative_to(SOURCE).parts)}:
            around = [module for module, _ in imports_of(path) if module.startswith(f"{package}.")]
            assert around == [], f"{path}: import {package}"
