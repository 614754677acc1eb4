"""Compiled packages, read with libyaml, because PyYAML's own parser takes seconds for each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from pipelines.cli import main


def load_package(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a package: the pipeline, and what Kubernetes is told of it where there is something."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def elcrec_pipeline(arguments: Sequence[str]) -> int:
    """Run `elcrec-pipeline`, and return its exit status.

    In a thread of its own: kfp reads the whole call stack for every setting of every step, and that of a test under
    pytest is deep, which takes ten times as long as the rest of a compilation.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(main, arguments).result()
