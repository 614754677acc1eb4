"""Logs of tests, checked as `elcrec` checks them."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elcrec.config import FetchConfig, LocalFile, ValidateConfig
from elcrec.stages.fetch import fetch
from elcrec.stages.validate import Metrics, validate
from tests.support.engines import ENGINE

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SMALL = {"min_rows": 1, "min_users": 1, "min_items": 1, "min_interactions_per_user": 0.1}
_MIRROR = os.environ.get("ELCREC_MIRROR", "")
_CASES = Path(_MIRROR).parent / "cases" / "logs"


def case(name: str) -> Path:
    """A handed case file, or a skip that says what is missing."""
    if not _MIRROR or not (_CASES / name).exists():
        pytest.skip("needs the case files: cases/logs beside the folder that ELCREC_MIRROR names")
    return _CASES / name


def checked(
    file: Path,
    folder: Path,
    *,
    name: str = "file",
    accepted: Path | None = None,
    accept_drift: str = "",
    **options: object,
) -> Metrics:
    """Fetch and validate a log as `elcrec` does."""
    layout = options.pop("format", "csv")
    fetch(FetchConfig(dataset="file", file=LocalFile(path=str(file), format=layout, name=name)), folder / "raw")
    given = {"engine": ENGINE, "now": NOW, "accepted": accepted, "accept_drift": accept_drift}
    return validate(ValidateConfig(**options), folder / "raw", folder / "out", **given)


def rows_of(folder: Path) -> pa.Table:
    """What validate accepted."""
    return pq.read_table(folder / "out" / "interactions.parquet")


def written(folder: Path, rows: Iterable[str], header: str = "user_id,item_id,timestamp") -> Path:
    """A log of these lines."""
    path = folder / "log.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return path
