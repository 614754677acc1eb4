"""`dvc repro` runs what changed, once, and leaves state alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

STAGES = ["fetch", "validate", "sequences", "train", "baseline", "evaluate", "push"]


@pytest.fixture(scope="module")
def tree(root: Path, tmp_path_factory: pytest.TempPathFactory, tiny_params: Callable[[Path], Path]) -> Path:
    """A clone with tiny parameters in which every stage ran once."""
    folder = tmp_path_factory.mktemp("clone")
    for name in (".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, folder / name)
    for name in ("data", "features", "src"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    tiny_params(folder)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    assert ran(repro(folder)) == STAGES
    return folder


def repro(folder: Path, *options: str) -> str:
    """Run `dvc repro`; return what it printed."""
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["dvc", "repro", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> list[str]:
    """The stages that ran, or would run, in an order that does not depend on DVC's."""
    names = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}
    return [name for name in STAGES if name in names]


def change(folder: Path, section: str, **values: object) -> None:
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document[section] = document.get(section, {}) | values
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


@pytest.fixture
def unchanged(tree: Path) -> Iterator[Path]:
    """The tree; what a test does to its parameters is undone."""
    params = tree / "params.yaml"
    before = params.read_bytes()
    yield tree
    params.write_bytes(before)


def test_a_second_repro_does_nothing(unchanged: Path) -> None:
    output = repro(unchanged)
    assert ran(output) == []
    assert "Data and pipelines are up to date." in output


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("fetch", {"dataset": "file"}, ["fetch"]),
        ("validate", {"min_rows": 101}, ["validate"]),
        ("sequences", {"history": 7}, ["sequences"]),
        ("train", {"seed": 2}, ["train", "baseline"]),
        ("evaluate", {"bootstrap": 21}, ["evaluate"]),
        ("push", {"model_name": "other"}, ["push"]),
        # The engine that sorts a log changes no result.
        ("engine", {"kind": "spark", "threads": 2, "memory_mb": 900, "spill": "elsewhere"}, []),
    ],
)
def test_a_parameter_belongs_to_one_verb(
    unchanged: Path, section: str, values: dict[str, object], expected: list[str]
) -> None:
    change(unchanged, section, **values)
    assert ran(repro(unchanged, "--dry")) == expected


def test_a_new_log_under_data_is_fetched(unchanged: Path) -> None:
    log = unchanged / "data" / "log.parquet"
    log.write_bytes(b"new")
    try:
        assert ran(repro(unchanged, "--dry")) == ["fetch"]
    finally:
        log.unlink()


def test_a_looser_check_of_the_same_log_trains_nothing(tree: Path) -> None:
    change(tree, "validate", min_rows=99)
    assert ran(repro(tree)) == ["validate", "sequences"]


def test_another_seed_trains_again_and_keeps_the_store(tree: Path) -> None:
    before = {path for path in (tree / "artifacts" / "store").rglob("*") if path.is_file()}
    change(tree, "train", seed=2)
    assert ran(repro(tree)) == ["train", "baseline", "evaluate", "push"]
    assert before
    assert all(path.exists() for path in before)
