"""A tree and a configuration small enough to run every stage in seconds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

TINY: Mapping[str, Any] = {
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


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Parameters for seconds, not minutes; a fresh copy a test."""
    copy: dict[str, Any] = json.loads(json.dumps(TINY))
    return copy


@pytest.fixture
def params(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    """The tiny parameters as a file."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    return path
