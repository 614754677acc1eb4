"""Small logs as text, measured and judged by the default engine."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.config import LogFormat, ValidateConfig
from elcrec.data.forgotten import Forgotten
from elcrec.data.profile import Profile
from elcrec.data.quality import Assessment, assess
from elcrec.data.readers import read_log
from elcrec.data.survey import Limits, survey
from tests.support.engines import ENGINE

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SOURCE = {"dataset": "file", "md5": "0" * 32}


def assess_text(
    folder: Path,
    content: str,
    config: ValidateConfig,
    *,
    layout: LogFormat = "csv",
    previous: Profile | None = None,
    forgotten: Forgotten | None = None,
) -> Assessment:
    """Judge a log; its rows are in `folder` afterwards."""
    file = folder / "data"
    file.write_text(content, encoding="utf-8")
    with ENGINE.session(folder / "out") as session:
        limits = Limits(max_id_length=config.max_id_length, now=NOW)
        log = read_log([file], layout)
        about = {"previous": previous, "limits": limits, "forgotten": forgotten or Forgotten()}
        found = survey(session, log, source=SOURCE, **about, folder=folder)
    return assess(found, config, now=NOW)


def quarantine_in(folder: Path) -> pa.Table:
    return pq.read_table(folder / "quarantine.parquet")
