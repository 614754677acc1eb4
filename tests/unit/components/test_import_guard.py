"""Components import the standard library, kfp and the image's name at module level, nothing else."""

import ast
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "components"
COMPONENTS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))


def imported_at_module_level(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_there_is_a_component_a_verb() -> None:
    verbs = {"fetch", "validate", "sequences", "train", "evaluate", "push", "exposures", "monitor"}
    of_pipelines = {
        "configure",
        "resolve",
        "require_valid",
        "champion",
        "plan",
        "select",
        "gate",
        "recommend",
        "outcome",
    }
    assert {path.stem for path in COMPONENTS} == verbs | of_pipelines


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.stem)
def test_a_component_imports_only_the_standard_library_and_kfp(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "kfp"}
    foreign = {name for name in imported_at_module_level(path) if name.split(".")[0] not in allowed}
    assert foreign <= {"components._image"}
    assert "__future__" not in imported_at_module_level(path)
