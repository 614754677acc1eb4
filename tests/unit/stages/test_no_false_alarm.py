"""Sound logs pass without a warning, a second version of them too: ten shapes, the benchmark sets, the sample."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from elcrec.artifacts import read_json
from elcrec.config import FetchConfig, SequencesConfig, ValidateConfig, load_config
from elcrec.stages.fetch import fetch
from elcrec.stages.sequences import build_sequences
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE
from tests.support.logs import NOW, checked
from tests.support.sound_logs import SOUND_LOGS, Sound

PARAMS = Path(__file__).parents[3] / "params.yaml"
BENCHMARKS = ("beauty", "sports", "toys", "yelp")


def alarms(folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of: checks that do not hold, lines on the terminal; then sequences are built as well."""
    build_sequences(SequencesConfig(), folder / "out", folder / "sequences", engine=ENGINE)
    checks = read_json(folder / "out" / "validation.json")["checks"]
    broken = [f"{check['name']}: {check['observed']}" for check in checks if not check["passed"]]
    return broken + [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("make", SOUND_LOGS, ids=lambda make: make.__name__)
def test_a_sound_log_of_any_shape_gives_no_warning(
    make: Callable[[Path], Sound], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, options = make(tmp_path)
    found = checked(file, tmp_path, accepted=tmp_path / "accepted", **options)
    assert found["quarantined"] == 0
    assert alarms(tmp_path, caplog) == []


@pytest.mark.parametrize("name", ["sample", *BENCHMARKS])
def test_the_benchmark_sets_and_the_sample_give_no_warning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = os.environ.get("ELCREC_MIRROR", "")
    if name != "sample" and not (Path(mirror) / f"{name}.txt").exists():
        pytest.skip("needs the benchmark sets: ELCREC_MIRROR names their folder")
    sources = load_config(PARAMS).fetch.sources
    fetch(FetchConfig(dataset=name, sources=sources), tmp_path / "raw", mirror=Path(mirror))
    validate(ValidateConfig(), tmp_path / "raw", tmp_path / "out", engine=ENGINE, now=NOW)
    assert alarms(tmp_path, caplog) == []
