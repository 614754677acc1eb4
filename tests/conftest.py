"""Settings of all tests: one thread each, because they run in parallel, and the place of the benchmark sets."""

import os
from pathlib import Path

import pytest

from elcrec.process import set_up_process

ROOT = Path(__file__).parents[1]
WHOLE = ("container", "killed", "pages", "parity", "serving")
"""Folders whose tests run whole pipelines, servers or browsers: all of them are `slow`."""

set_up_process()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of whole folders."""
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] in WHOLE:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Threads of tests that run side by side would wait for each other."""
    import torch  # noqa: PLC0415 - once the process is set up

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return the folder with the benchmark sets."""
    folder = Path(os.environ.get("ELCREC_MIRROR") or ROOT.parent / "shared" / "datasets")
    if not folder.is_dir():
        pytest.skip(f"no benchmark sets: {folder} is absent (set ELCREC_MIRROR)")
    return folder


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow folder whose database has its tables and no more; making one takes seconds."""
    from elcrec.adapters.model_registry import make_database  # noqa: PLC0415 - takes a second

    folder = tmp_path_factory.mktemp("registry") / "mlflow"
    make_database(folder)
    return folder
