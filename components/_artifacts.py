"""Helpers for component bodies: facts on artifacts, metrics and pages."""

import hashlib
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elcrec import __version__
from elcrec.artifacts import code_revision, md5_of
from elcrec.masking import mask

PROVENANCE = ("data_md5", "data_location", "data_version", "dvc_repository", "dvc_revision", "dvc_path")
"""Facts in artifacts on the raw log from which they were made; for an object or a DVC repository, its version."""


def describe(*artifacts: Any, config: str, file: str = "", source: Any = None, **facts: str) -> None:
    """Record on KFP artifacts the data, parameters, code and image that made them.

    An artifact that is a file or folder also gets the md5 of its bytes and all parameters.

    Args:
        artifacts: Outputs of one component, except metrics, because the UI shows all facts of metrics in the table for
            comparing runs.
        config: JSON of the component's parameters.
        file: The main file of artifacts that are folders.
        source: The input with the data; its facts on the log are passed on.
        facts: Further facts; for an output that holds the log itself, some of `PROVENANCE`.
    """
    known = {name: source.metadata[name] for name in PROVENANCE if source is not None and name in source.metadata}
    common = {
        "image": os.environ.get("ELCREC_IMAGE", "unknown"),
        "git_revision": code_revision() or "unknown",
        "elcrec_version": __version__,
        "params_md5": hashlib.md5(config.encode(), usedforsecurity=False).hexdigest(),
    }
    for artifact in artifacts:
        said = common | known | facts | _bytes_of(Path(artifact.path), file, config)
        artifact.metadata.update({name: mask(text) for name, text in said.items()})


def _bytes_of(path: Path, file: str, config: str) -> dict[str, str]:
    if path.is_dir():
        return {"md5": md5_of(path / file), "file": file, "params": config}
    return {"md5": md5_of(path), "params": config} if path.is_file() else {}


def run_facts(name: str = "") -> dict[str, str]:
    """Return the facts on this step's run: id, name, namespace, and link if there is a UI."""
    run, ui = os.environ.get("ELCREC_RUN_ID", ""), os.environ.get("ELCREC_UI", "")
    link = f"{ui}/#/runs/details/{run}" if run and ui else ""
    facts = {"id": run, "name": name, "namespace": os.environ.get("ELCREC_NAMESPACE", ""), "link": link}
    return {key: value for key, value in facts.items() if value}


def log(metrics: Any, values: Mapping[str, object]) -> None:
    """Log the finite numbers among `values` as KFP metrics; other values, including booleans, are skipped."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            metrics.log_metric(name, float(value))


def publish(source: Path, artifact: Any) -> None:
    """Copy a file to the path of a KFP artifact that is a single page."""
    shutil.copyfile(source, artifact.path)


def publish_page(source: Path, artifact: Any) -> None:
    """Copy a page, which the configuration may disable; then the artifact says so."""
    if source.is_file():
        publish(source, artifact)
    else:
        Path(artifact.path).write_text("<p>The page is disabled, or there was nothing to show.</p>", encoding="utf-8")
