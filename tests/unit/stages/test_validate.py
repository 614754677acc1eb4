import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from elcrec.artifacts import read_json
from elcrec.config import FetchConfig, LocalFile, SyntheticConfig, ValidateConfig
from elcrec.errors import UserError
from elcrec.stages.fetch import fetch
from elcrec.stages.validate import validate
from tests.support.engines import ENGINE

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SAMPLE = FetchConfig(synthetic=SyntheticConfig(users=60, items=30, intents=3))
HEADER = "user_id,item_id,timestamp"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    fetch(SAMPLE, tmp_path / "raw")
    return tmp_path / "raw"


def fetch_rows(folder: Path, rows: list[str], name: str = "log.csv") -> Path:
    (folder / name).write_text("\n".join([HEADER, *rows, ""]))
    file = LocalFile(path=str(folder / name), format="csv")
    fetch(FetchConfig(dataset="file", file=file), folder / f"raw-{name}")
    return folder / f"raw-{name}"


def good_rows(count: int = 300, items: int = 20) -> list[str]:
    return [f"u{row // 6},i{row % items},{1_700_000_000 + row}" for row in range(count)]


def test_a_good_log_gives_interactions_an_empty_quarantine_and_a_report(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = validate(ValidateConfig(), raw, out, engine=ENGINE, now=NOW)
    report = read_json(out / "validation.json")
    assert sorted(path.name for path in out.iterdir()) == [
        "checksums.json",
        "interactions.parquet",
        "quarantine.parquet",
        "validation.html",
        "validation.json",
    ]
    assert report["passed"]
    assert report["time"] == "real"
    assert report["raw_md5"] == read_json(raw / "source.json")["md5"]
    assert (
        report["counts"]["accepted"] == metrics["accepted"] == pq.read_metadata(out / "interactions.parquet").num_rows
    )
    assert pq.read_metadata(out / "quarantine.parquet").num_rows == 0
    assert all(check.keys() == {"name", "severity", "passed", "observed", "expected"} for check in report["checks"])


def test_the_same_log_gives_the_same_bytes_whenever_it_is_validated(raw: Path, tmp_path: Path) -> None:
    validate(ValidateConfig(max_age_days=900.0), raw, tmp_path / "one", engine=ENGINE, now=NOW)
    validate(ValidateConfig(max_age_days=900.0), raw, tmp_path / "two", engine=ENGINE, now=NOW.replace(year=2027))
    for name in ("interactions.parquet", "quarantine.parquet", "validation.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_page_asks_for_nothing_from_outside_and_escapes_ids(tmp_path: Path) -> None:
    raw = fetch_rows(tmp_path, [*good_rows(), "<script>alert(1)</script>,,5"])
    validate(ValidateConfig(), raw, tmp_path / "out", engine=ENGINE, now=NOW)
    page = (tmp_path / "out" / "validation.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import|src=", page)
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<svg") == 3
    assert "item_id is present" in page


def test_few_faulty_rows_go_to_quarantine_and_the_log_passes(tmp_path: Path) -> None:
    raw = fetch_rows(tmp_path, [*good_rows(), ",i1,1700000005", "u1,i1"])
    metrics = validate(ValidateConfig(), raw, tmp_path / "out", engine=ENGINE, now=NOW)
    assert metrics["quarantined"] == 2
    assert metrics["warnings"] == 2
    report = read_json(tmp_path / "out" / "validation.json")
    assert report["quarantine"] == {"row has the header's number of fields": 1, "user_id is present": 1}


def test_a_failure_names_the_evidence_and_tabulates_it_and_keeps_the_old_output(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    validate(ValidateConfig(), raw, out, engine=ENGINE, now=NOW)
    before = (out / "validation.json").read_bytes()
    bad = fetch_rows(tmp_path, [*good_rows(), *[f",i{n},-5" for n in range(30)]])
    with pytest.raises(UserError, match=r"validation failed: share of faulty rows; see .*out.failed") as caught:
        validate(ValidateConfig(), bad, out, engine=ENGINE, now=NOW)
    assert re.search(r"share of faulty rows +9.09% \(30 rows\) +1.00% at most", caught.value.details)
    assert "line 302: None, 'i0', '-5'" in caught.value.details
    assert (out / "validation.json").read_bytes() == before
    failed = tmp_path / "out.failed"
    assert sorted(path.name for path in failed.iterdir()) == [
        "quarantine.parquet",
        "validation.html",
        "validation.json",
    ]
    assert not read_json(failed / "validation.json")["passed"]


def test_a_success_removes_the_evidence_of_an_earlier_failure(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        validate(ValidateConfig(min_rows=10**9), raw, tmp_path / "out", engine=ENGINE, now=NOW)
    assert (tmp_path / "out.failed").is_dir()
    validate(ValidateConfig(), raw, tmp_path / "out", engine=ENGINE, now=NOW)
    assert not (tmp_path / "out.failed").exists()


def test_a_drifted_log_is_compared_with_the_last_accepted_one_and_not_accepted(tmp_path: Path) -> None:
    accepted = tmp_path / "accepted"
    first, second = fetch_rows(tmp_path, good_rows()), fetch_rows(tmp_path, good_rows(items=90), "b.csv")
    validate(ValidateConfig(), first, tmp_path / "out", accepted=accepted, engine=ENGINE, now=NOW)
    with pytest.raises(UserError, match=r"drift of item popularity.*--accept-drift"):
        validate(ValidateConfig(), second, tmp_path / "out", accepted=accepted, engine=ENGINE, now=NOW)
    remembered = read_json(accepted / "profile.json")
    assert remembered["profile"]["md5"] == read_json(first / "source.json")["md5"]


def test_an_accepted_drift_is_a_warning_with_a_reason_and_the_next_log_is_compared_with_it(
    tmp_path: Path,
) -> None:
    accepted, out, reason = tmp_path / "accepted", tmp_path / "out", "Ana: <b>summer sale</b>"
    first, second = fetch_rows(tmp_path, good_rows()), fetch_rows(tmp_path, good_rows(items=90), "b.csv")
    validate(ValidateConfig(), first, out, accepted=accepted, engine=ENGINE, now=NOW, accept_drift=reason)
    assert read_json(out / "validation.json")["drift_accepted"] is None
    validate(ValidateConfig(), second, out, accepted=accepted, engine=ENGINE, now=NOW, accept_drift=reason)
    report = read_json(out / "validation.json")
    assert report["drift_accepted"] == reason
    assert [(c["name"], c["severity"]) for c in report["checks"] if not c["passed"]] == [
        ("drift of item popularity", "warning")
    ]
    assert "Ana: &lt;b&gt;summer sale" in (out / "validation.html").read_text(encoding="utf-8")
    assert read_json(accepted / "profile.json")["profile"]["md5"] == report["raw_md5"]


def test_a_log_whose_drift_was_accepted_is_accepted_when_it_is_checked_again(tmp_path: Path) -> None:
    accepted, out = tmp_path / "accepted", tmp_path / "out"
    first, second = fetch_rows(tmp_path, good_rows()), fetch_rows(tmp_path, good_rows(items=90), "b.csv")
    third = fetch_rows(tmp_path, good_rows(items=30), "c.csv")
    validate(ValidateConfig(), first, out, accepted=accepted, engine=ENGINE, now=NOW)
    validate(ValidateConfig(), second, out, accepted=accepted, engine=ENGINE, now=NOW, accept_drift="Ana: sale")
    report = (out / "validation.json").read_bytes()
    for _ in range(2):
        validate(ValidateConfig(), second, out, accepted=accepted, engine=ENGINE, now=NOW)
        assert (out / "validation.json").read_bytes() == report
    with pytest.raises(UserError, match="--accept-drift"):
        validate(ValidateConfig(), third, out, accepted=accepted, engine=ENGINE, now=NOW)


def test_accepting_a_drift_accepts_nothing_else(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="validation failed: accepted rows"):
        validate(
            ValidateConfig(min_rows=10**9), raw, tmp_path / "out", engine=ENGINE, now=NOW, accept_drift="Ana: why not"
        )


def test_validating_again_compares_with_the_log_before_and_gives_the_same_bytes(tmp_path: Path) -> None:
    accepted, out = tmp_path / "accepted", tmp_path / "out"
    first, second = fetch_rows(tmp_path, good_rows()), fetch_rows(tmp_path, good_rows(330), "b.csv")
    validate(ValidateConfig(), first, out, accepted=accepted, engine=ENGINE, now=NOW)
    validate(ValidateConfig(), second, out, accepted=accepted, engine=ENGINE, now=NOW)
    before = (out / "validation.json").read_bytes(), (accepted / "profile.json").read_bytes()
    assert json.loads(before[0])["compared_with"] == read_json(first / "source.json")["md5"]
    validate(ValidateConfig(), second, out, accepted=accepted, engine=ENGINE, now=NOW)
    assert ((out / "validation.json").read_bytes(), (accepted / "profile.json").read_bytes()) == before


def test_another_data_set_is_not_compared(raw: Path, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted"
    validate(ValidateConfig(), raw, tmp_path / "out", accepted=accepted, engine=ENGINE, now=NOW)
    other = fetch_rows(tmp_path, good_rows())
    validate(ValidateConfig(), other, tmp_path / "out", accepted=accepted, engine=ENGINE, now=NOW)
    assert read_json(tmp_path / "out" / "validation.json")["compared_with"] is None


def test_a_file_that_changed_after_it_was_fetched_is_refused(raw: Path, tmp_path: Path) -> None:
    with (raw / "data.csv").open("a") as file:
        file.write("u,i,2026-01-01\n")
    with pytest.raises(UserError, match="not the one that was fetched"):
        validate(ValidateConfig(), raw, tmp_path / "out", engine=ENGINE, now=NOW)
