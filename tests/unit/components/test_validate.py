"""A refused log leaves its page and numbers; the step after it fails."""

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components._sections import write_section
from components.fetch import fetch
from components.require_valid import require_valid
from components.validate import validate
from elcrec.artifacts import md5_of
from elcrec.config import EngineConfig, FetchConfig, SyntheticConfig, ValidateConfig
from elcrec.errors import UserError


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dsl.Dataset:
    folder = tmp_path_factory.mktemp("fetched")
    log = dsl.Dataset(name="raw", uri=str(folder / "raw"))
    section = FetchConfig(dataset="sample", synthetic=SyntheticConfig(users=50, items=20, intents=2))
    version = dict.fromkeys(("dvc_repository", "dvc_revision", "dvc_path", "dvc_md5"), "")
    metrics = dsl.Metrics(name="metrics", uri=str(folder / "metrics"))
    fetch.python_func(config=write_section(section), **version, raw=log, metrics=metrics)
    return log


def run(raw: dsl.Dataset, folder: Path, **limits: Any) -> tuple[tuple[bool, str], dict[str, Any]]:
    """Return validate's verdict and the artifacts that it wrote, by name."""
    kinds = {"validated": dsl.Dataset, "report": dsl.HTML, "metrics": dsl.Metrics}
    ports = {name: kind(name=name, uri=str(folder / name)) for name, kind in kinds.items()}
    sections = {"config": write_section(ValidateConfig(**limits)), "engine": write_section(EngineConfig(threads=1))}
    given = {"store": str(folder / "store"), "accept_drift": "", "spark": "", "raw": raw}
    return validate.python_func(**sections, **given, **ports), ports


def test_a_refused_log_leaves_page_evidence_and_numbers_but_no_profile(raw: dsl.Dataset, tmp_path: Path) -> None:
    (accepted, reason), ports = run(raw, tmp_path, min_rows=10**6)
    assert not accepted
    assert reason == "validation failed: accepted rows"
    assert Path(ports["report"].path).read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    evidence = Path(ports["validated"].path)
    assert {path.name for path in evidence.iterdir()} == {"quarantine.parquet", "validation.html", "validation.json"}
    assert ports["validated"].metadata["md5"] == md5_of(evidence / "validation.json")
    assert ports["metrics"].metadata["rows"] > 0
    assert not (tmp_path / "store").exists()


def test_an_accepted_log_has_no_reason_against_it(raw: dsl.Dataset, tmp_path: Path) -> None:
    verdict, ports = run(raw, tmp_path, min_rows=1)
    assert verdict == (True, "")
    assert ports["validated"].metadata["file"] == "interactions.parquet"
    require_valid.python_func(accepted=True, reason="")


def test_a_log_that_cannot_be_read_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.json"):
        run(dsl.Dataset(name="raw", uri=str(tmp_path / "absent")), tmp_path)


def test_the_run_of_a_refused_log_fails_with_the_reason() -> None:
    with pytest.raises(UserError, match="the log: validation failed: accepted rows; see the report of validate"):
        require_valid.python_func(accepted=False, reason="validation failed: accepted rows")
