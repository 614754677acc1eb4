"""Dependencies point inward: orchestrators know elcrec, elcrec knows none of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imports import imports_of

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "elcrec"
CORE = ("data", "ops", "model", "training", "ranking", "evaluation", "serving", "monitoring")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its head or inside a function, by its full name."""
    for module, names in imports_of(path):
        yield from (f"{module}.{name}" for name in names) if names else (module,)


def offences(folder: Path, forbidden: tuple[str, ...]) -> list[str]:
    files = sorted(folder.rglob("*.py"))
    assert files, f"{folder} holds no Python file"
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_the_product_knows_no_orchestrator_and_no_benchmark() -> None:
    assert offences(SOURCE, ("kfp", "dvc", "components", "pipelines", "benchmarks")) == []


def test_outside_systems_are_known_to_adapters_alone() -> None:
    found = offences(
        SOURCE,
        ("duckdb", "feast", "mlflow", "kubeflow", "kubernetes", "pyspark", "opentelemetry", "redis", "confluent_kafka"),
    )

    assert found, "the adapters import them, so the search is blind"
    assert [line for line in found if not line.startswith("src/elcrec/adapters/")] == []


@pytest.mark.parametrize("package", CORE)
def test_the_core_knows_no_adapter_stage_or_command_line(package: str) -> None:
    assert offences(SOURCE / package, ("elcrec.adapters", "elcrec.stages", "elcrec.cli")) == []


@pytest.mark.parametrize("package", [*CORE, "adapters"])
def test_only_stages_write_pages(package: str) -> None:
    assert offences(SOURCE / package, ("elcrec.pages",)) == []


def test_pages_draw_what_they_are_handed() -> None:
    outer = ("elcrec.adapters", "elcrec.stages", "elcrec.cli", "elcrec.serving", "duckdb")
    assert offences(SOURCE / "pages", outer) == []


def test_operations_know_nothing_of_the_model() -> None:
    others = tuple(f"elcrec.{name}" for name in (*CORE, "config", "registry") if name != "ops")
    assert offences(SOURCE / "ops", others) == []


def test_stages_are_handed_their_adapters() -> None:
    assert offences(SOURCE / "stages", ("elcrec.adapters", "elcrec.cli")) == []


def test_feature_definitions_stand_alone() -> None:
    assert offences(ROOT / "features", ("elcrec", "components", "pipelines")) == []


def test_a_component_does_not_know_the_pipeline_that_uses_it() -> None:
    assert offences(ROOT / "components", ("pipelines",)) == []


def test_an_offence_is_found_wherever_it_hides(tmp_path: Path) -> None:
    hidden = "def f():\n    if True:\n        from elcrec.adapters import store\n"
    (tmp_path / "module.py").write_text(hidden, encoding="utf-8")

    assert list(imports(tmp_path / "module.py")) == ["elcrec.adapters.store"]
