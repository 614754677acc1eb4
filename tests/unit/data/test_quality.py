from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from elcrec.config import ValidateConfig
from elcrec.data.bounds import Bound, judge
from elcrec.data.log import RawLog
from elcrec.data.quality import Assessment, assess, count_out_of_order
from elcrec.data.readers import read_log
from elcrec.data.rows import measure_rows, row_rules

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SOURCE = {"dataset": "file", "md5": "0" * 32}
LENIENT = ValidateConfig(
    min_rows=1,
    min_users=1,
    min_items=1,
    min_interactions_per_user=0.1,
    max_quarantine_share=1.0,
    max_id_length=10,
)
FAULTY = """user_id,item_id,timestamp
u1,i1,2026-01-01
,i1,2026-01-01
u1,,2026-01-01
12345678901,i1,2026-01-01
u1,12345678901,2026-01-01
u1,i1,
u1,i1,soon
u1,i1,-1
u1,i1,2026-02-03
u1,i1,2026-01-01
u1,i1
u1,i1,2026-02-02
"""
REASONS = {
    1: "user_id is present",
    2: "item_id is present",
    3: "user_id is short enough",
    4: "item_id is short enough",
    5: "timestamp is present",
    6: "timestamp is readable",
    7: "timestamp is not negative",
    8: "timestamp is not in the future",
    9: "event is unique",
    10: "row has the header's number of fields",
}


def log_of(folder: Path, content: str) -> RawLog:
    (folder / "data.csv").write_text(content)
    return read_log(folder / "data.csv", "csv")


def assess_text(folder: Path, content: str, config: ValidateConfig = LENIENT, **given: object) -> Assessment:
    return assess(log_of(folder, content), config, source=SOURCE, now=NOW, **given)  # type: ignore[arg-type]


def passed(assessment: Assessment) -> dict[str, bool]:
    return {check.name: check.passed for check in assessment.checks}


def test_every_kind_of_faulty_row_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    quarantine = assess_text(tmp_path, FAULTY).rows.quarantine
    assert dict(zip(quarantine["row"].to_pylist(), quarantine["reason"].to_pylist(), strict=True)) == REASONS
    assert quarantine["timestamp"].to_pylist()[5:8] == ["soon", "-1", "2026-02-03"]
    assert [str(field.type) for field in quarantine.schema] == [
        "int64",
        "string",
        "string",
        "string",
        "string",
    ]


def test_good_rows_remain_in_the_order_of_the_log(tmp_path: Path) -> None:
    interactions = assess_text(tmp_path, FAULTY).rows.interactions
    assert [str(field.type) for field in interactions.schema] == ["string", "string", "timestamp[us, tz=UTC]"]
    assert [f"{time:%Y-%m-%d}" for time in interactions["timestamp"].to_pylist()] == [
        "2026-01-01",
        "2026-02-02",
    ]


def test_an_event_s_id_counts_once_a_user_and_stays_with_its_row(tmp_path: Path) -> None:
    content = """user_id,item_id,timestamp,event_id
u1,i1,2026-01-01,a
u1,i1,2026-01-02,a
u2,i1,2026-01-02,a
u1,i2,2026-01-03,
u1,i3,2026-01-03,
u1,i4,2026-01-04,12345678901
"""
    rows = assess_text(tmp_path, content).rows

    assert rows.interactions["event_id"].to_pylist() == ["a", "a", None, None]
    reasons = dict(zip(rows.quarantine["row"].to_pylist(), rows.quarantine["reason"].to_pylist(), strict=True))
    assert reasons == {1: "event is unique", 5: "event_id is short enough"}


def test_great_expectations_counts_the_rows_that_the_quarantine_takes(tmp_path: Path) -> None:
    measures, rules = measure_rows(log_of(tmp_path, FAULTY)), row_rules(10, NOW, event_ids=False)
    verdicts = judge(measures, rules)
    for rule in rules:
        broken = int(rule.broken_by(measures[rule.column].to_numpy()).sum())
        assert verdicts[rule.name].broken == broken > 0
        assert not verdicts[rule.name].passed


def test_a_bound_holds_at_its_limits_and_for_absent_values() -> None:
    bound = Bound(name="b", column="c", expected="1 to 2", minimum=1, maximum=2)
    table = pd.DataFrame({"c": [1.0, 2.0, np.nan]})
    assert judge(table, [bound])["b"].passed
    assert not bound.broken_by(table["c"].to_numpy()).any()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"min_rows": 5}, "accepted rows"),
        ({"min_users": 3}, "users"),
        ({"min_items": 4}, "items"),
        ({"min_interactions_per_user": 2.5}, "interactions per user"),
        ({"order": "strict"}, "events in time order"),
        ({"max_age_days": 10.0}, "freshness"),
        ({"max_quarantine_share": 0.1}, "share of faulty rows"),
    ],
)
def test_each_limit_fails_its_own_critical_check(tmp_path: Path, change: dict[str, object], check: str) -> None:
    content = "user_id,item_id,timestamp\nu1,a,9\nu1,b,8\nu2,a,1\nu2,c,2\nu2,c,2\n"
    config = lenient_but(change)
    assert assess_text(tmp_path, content).passed
    assert [failure.name for failure in assess_text(tmp_path, content, config).failures] == [check]


def lenient_but(change: dict[str, object]) -> ValidateConfig:
    return ValidateConfig(**({name: getattr(LENIENT, name) for name in LENIENT.__struct_fields__} | change))


def test_freshness_is_not_asked_of_a_log_that_has_only_an_order(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("u1 a b c\n")
    log = read_log(tmp_path / "data.txt", "benchmark")
    assessment = assess(log, lenient_but({"max_age_days": 1.0}), source=SOURCE, now=NOW)
    assert "freshness" not in passed(assessment)


def test_out_of_order_events_are_found_across_other_users_rows() -> None:
    time = pa.array([3, 1, 2, 2, 5]).cast(pa.timestamp("us", tz="UTC"))
    log = pa.table({"user_id": ["a", "b", "a", "b", "a"], "timestamp": time})
    assert count_out_of_order(log) == 1
    assert count_out_of_order(log.slice(0, 0)) == 0


def steady_log(items: int, rows: int = 600) -> str:
    lines = [f"u{row // 6},i{row % items},{row}" for row in range(rows)]
    return "\n".join(["user_id,item_id,timestamp", *lines, ""])


def test_drift_against_the_previous_log_is_judged_only_when_there_is_one(tmp_path: Path) -> None:
    first = assess_text(tmp_path, steady_log(20))
    assert not any("drift" in name for name in passed(first))
    same = assess_text(tmp_path, steady_log(20), previous=first.profile)
    assert same.passed
    assert passed(same)["drift of item popularity"]
    moved = assess_text(tmp_path, steady_log(90), previous=first.profile)
    assert [failure.name for failure in moved.failures] == ["drift of item popularity"]
    shrunk = assess_text(tmp_path, steady_log(20, rows=240), previous=first.profile)
    assert [failure.name for failure in shrunk.failures] == ["change of row count"]


def test_a_log_of_torn_lines_alone_fails_without_an_error(tmp_path: Path) -> None:
    assessment = assess_text(tmp_path, "user_id,item_id,timestamp\nu1\nu2\n")
    assert not assessment.passed
    assert len(assessment.rows.quarantine) == 2


def test_the_future_begins_a_day_after_now(tmp_path: Path) -> None:
    def accepted(moment: datetime) -> bool:
        content = f"user_id,item_id,timestamp\nu,i,{moment.isoformat()}\n"
        return not len(assess_text(tmp_path, content).rows.quarantine)

    assert accepted(NOW + timedelta(days=1))
    assert not accepted(NOW + timedelta(days=1, seconds=1))
