"""Every installation that deploy/overlays describes, rendered."""

from pathlib import Path

import pytest

from tests.support.kustomize import Document, load, render

ROOT = Path(__file__).parents[3]
OVERLAYS = sorted(path.parent for path in (ROOT / "deploy" / "overlays").glob("*/kustomization.yaml"))


@pytest.fixture(scope="session", params=OVERLAYS, ids=lambda path: path.name)
def overlay(request: pytest.FixtureRequest) -> Path:
    """Return the folder of an overlay."""
    return Path(request.param)


@pytest.fixture
def documents(overlay: Path) -> list[Document]:
    """Return all of an overlay's documents, free to change."""
    return render(overlay)


@pytest.fixture(scope="session")
def template() -> list[Document]:
    """Return the template of the secrets."""
    return load(ROOT / "deploy" / "secrets" / "secrets.yaml")
