import builtins
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from elcrec.config import ValidateConfig
from elcrec.data.bounds import Bound, judge
from elcrec.data.forgotten import Forgotten
from elcrec.data.quality import Assessment
from elcrec.errors import UserError
from tests.support.surveys import NOW, assess_text, quarantine_in

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


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Assessment]:
    """The rows of FAULTY in a folder, and their verdict."""
    folder = tmp_path_factory.mktemp("faulty")
    return folder, assess_text(folder, FAULTY, LENIENT)


def passed(assessment: Assessment) -> dict[str, bool]:
    return {check.name: check.passed for check in assessment.checks}


def test_every_kind_of_faulty_row_is_quarantined_with_its_reason(faulty: tuple[Path, Assessment]) -> None:
    quarantine = quarantine_in(faulty[0])
    assert dict(zip(quarantine["row"].to_pylist(), quarantine["reason"].to_pylist(), strict=True)) == REASONS
    assert quarantine["timestamp"].to_pylist()[5:8] == ["soon", "-1", "2026-02-03"]
    assert [str(field.type) for field in quarantine.schema] == [
        "int64",
        "string",
        "string",
        "string",
        "string",
    ]


def test_good_rows_remain_in_the_order_of_the_log(faulty: tuple[Path, Assessment]) -> None:
    interactions = pq.read_table(faulty[0] / "interactions.parquet")
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
    assess_text(tmp_path, content, LENIENT)

    interactions, quarantine = pq.read_table(tmp_path / "interactions.parquet"), quarantine_in(tmp_path)
    assert interactions["event_id"].to_pylist() == ["a", "a", None, None]
    reasons = dict(zip(quarantine["row"].to_pylist(), quarantine["reason"].to_pylist(), strict=True))
    assert reasons == {1: "event is unique", 5: "event_id is short enough"}


def test_a_log_of_forgotten_users_alone_fails_without_an_error(tmp_path: Path) -> None:
    forgotten = Forgotten().adding("u1", NOW)
    assessment = assess_text(tmp_path, "user_id,item_id,timestamp\nu1,i1,1\n", LENIENT, forgotten=forgotten)
    assert not assessment.passed
    assert (assessment.survey.rows, assessment.survey.forgotten, len(quarantine_in(tmp_path))) == (0, 1, 0)


def test_each_broken_rule_is_a_warning_of_great_expectations_with_its_count(
    faulty: tuple[Path, Assessment],
) -> None:
    rules = {check.name: check for check in faulty[1].checks if check.name in REASONS.values()}
    assert set(rules) == set(REASONS.values())
    assert all(check.observed == "1 rows break it" and not check.passed for check in rules.values())
    assert {check.severity for check in rules.values()} == {"warning"}


def test_the_reasons_are_counted_and_shown_with_their_rows(faulty: tuple[Path, Assessment]) -> None:
    faults = faulty[1].survey.sorted.faults
    assert {fault.examples[0]["row"]: fault.reason for fault in faults} == REASONS
    assert [fault.reason for fault in faults] == sorted(REASONS.values()), "equal counts by name"


def test_a_bound_holds_at_its_limits() -> None:
    bounds = [
        Bound(name="low", column="low", expected="1 to 2", minimum=1, maximum=2),
        Bound(name="high", column="high", expected="1 to 2", minimum=1, maximum=2),
        Bound(name="above", column="above", expected="1 to 2", minimum=1, maximum=2),
    ]
    table = pd.DataFrame({"low": [1.0], "high": [2.0], "above": [2.5]})
    assert judge(table, bounds) == {"low": True, "high": True, "above": False}


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
    assert assess_text(tmp_path, content, LENIENT).passed
    assert [failure.name for failure in assess_text(tmp_path, content, lenient_but(change)).failures] == [check]


def lenient_but(change: dict[str, object]) -> ValidateConfig:
    return ValidateConfig(**({name: getattr(LENIENT, name) for name in LENIENT.__struct_fields__} | change))


def test_freshness_is_not_checked_for_a_log_with_only_an_order(tmp_path: Path) -> None:
    assessment = assess_text(tmp_path, "u1 a b c\n", lenient_but({"max_age_days": 1.0}), layout="benchmark")
    assert "freshness" not in passed(assessment)


def test_out_of_order_events_are_found_across_other_users_rows(tmp_path: Path) -> None:
    times = {"a": (3, 2, 5), "b": (1, 2)}
    rows = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
    lines = [f"{user},i{number},{times[user][number]}" for user, number in rows]
    assessment = assess_text(tmp_path, "\n".join(["user_id,item_id,timestamp", *lines, ""]), LENIENT)
    assert assessment.survey.out_of_order == 1


def steady_log(items: int, rows: int = 600) -> str:
    lines = [f"u{row // 6},i{row % items},{row}" for row in range(rows)]
    return "\n".join(["user_id,item_id,timestamp", *lines, ""])


def test_drift_against_the_previous_log_is_judged_only_when_there_is_one(tmp_path: Path) -> None:
    first = assess_text(tmp_path, steady_log(20), LENIENT)
    assert not any("drift" in name for name in passed(first))
    same = assess_text(tmp_path, steady_log(20), LENIENT, previous=first.survey.profile)
    assert same.passed
    assert passed(same)["drift of item popularity"]
    moved = assess_text(tmp_path, steady_log(90), LENIENT, previous=first.survey.profile)
    assert [failure.name for failure in moved.failures] == ["drift of item popularity"]
    shrunk = assess_text(tmp_path, steady_log(20, rows=240), LENIENT, previous=first.survey.profile)
    assert [failure.name for failure in shrunk.failures] == ["change of row count"]


def test_a_log_of_torn_lines_alone_fails_without_an_error(tmp_path: Path) -> None:
    assessment = assess_text(tmp_path, "user_id,item_id,timestamp\nu1\nu2\n", LENIENT)
    assert not assessment.passed
    assert len(quarantine_in(tmp_path)) == 2


def test_the_future_begins_a_day_after_now(tmp_path: Path) -> None:
    def accepted(moment: datetime) -> bool:
        content = f"user_id,item_id,timestamp\nu,i,{moment.isoformat()}\n"
        return not assess_text(tmp_path, content, LENIENT).survey.sorted.quarantined

    assert accepted(NOW + timedelta(days=1))
    assert not accepted(NOW + timedelta(days=1, seconds=1))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no module"), "needs Great Expectations; install it"),
        (
            ImportError("failed to map segment"),
            r"cannot be loaded \(failed to map segment\); give the process more memory",
        ),
    ],
)
def test_great_expectations_that_fails_to_load_is_distinguished_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, said: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "great_expectations":
            raise error
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=said):
        judge(pd.DataFrame({"low": [1]}), [])
