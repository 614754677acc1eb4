"""The facts that components record on artifacts and as metrics."""

import hashlib
from pathlib import Path

import pytest
from kfp import dsl

from components._artifacts import describe, log
from elcrec import __version__
from elcrec.artifacts import md5_of


def test_only_finite_numbers_become_metrics() -> None:
    metrics = dsl.Metrics(name="m", uri="m")
    log(metrics, {"ndcg@20": 0.5, "rows": 3, "reason": "text", "none": None, "accepted": True, "nan": float("nan")})
    assert metrics.metadata == {"ndcg@20": 0.5, "rows": 3.0}


def test_an_artifact_records_its_bytes_parameters_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELCREC_GIT_REVISION", "abc")
    monkeypatch.setenv("ELCREC_IMAGE", "elcrec@sha256:1")
    (tmp_path / "data.csv").write_text("x", encoding="utf-8")
    artifact = dsl.Dataset(name="raw", uri=str(tmp_path))
    describe(artifact, file="data.csv", config="{}", dvc_revision="def")
    assert artifact.metadata == {
        "md5": md5_of(tmp_path / "data.csv"),
        "file": "data.csv",
        "params": "{}",
        "params_md5": hashlib.md5(b"{}", usedforsecurity=False).hexdigest(),
        "git_revision": "abc",
        "image": "elcrec@sha256:1",
        "elcrec_version": __version__,
        "dvc_revision": "def",
    }


def test_a_page_passes_on_the_facts_of_its_input_on_the_log(tmp_path: Path) -> None:
    provenance = {"data_md5": "1", "dvc_repository": "r", "dvc_revision": "c", "dvc_path": "p"}
    source = dsl.Dataset(name="raw", uri="raw", metadata=provenance | {"md5": "2", "params": "other", "file": "log"})
    page = dsl.HTML(name="report", uri=str(tmp_path / "report"))
    (tmp_path / "report").write_text("x", encoding="utf-8")
    describe(page, config="{}", source=source)
    assert provenance.items() <= page.metadata.items()
    assert (page.metadata["md5"], page.metadata["params"]) == (md5_of(tmp_path / "report"), "{}")
