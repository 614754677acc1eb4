"""Compiled packages as documents: parsed by libyaml, as PyYAML's own parser takes seconds for each."""

from pathlib import Path
from typing import Any

import yaml


def load_package(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a package: the pipeline, and what Kubernetes is told of it where there is something."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
