"""A project folder and a configuration small enough to run every stage in seconds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

TINY: dict[str, Any] = {
    "fetch": {"dataset": "sample", "synthetic": {"users": 200, "items": 60, "intents": 4}},
    "validate": {"min_rows": 100},
    "sequences": {"split": "leave_one_out"},
    "train": {
        "encoder": {"window": 10, "hidden_size": 16, "num_blocks": 1},
        "intents": {"num_intents": 4},
        "epochs": 2,
        "device": "cpu",
    },
    "evaluate": {"bootstrap": 20, "block_users": 64},
    "push": {"gate": {"floors": {"ndcg@20": 0.0}}},
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_params() -> Callable[[Path], Path]:
    """Writes the tiny parameters into a folder as params.yaml."""

    def write(folder: Path) -> Path:
        path = folder / "params.yaml"
        path.write_text(yaml.safe_dump(TINY, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def features() -> Iterator[None]:
    """Names the Feast repository, as these tests work in folders of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELCREC_FEATURES", str(ROOT / "features"))
        yield
