"""A log beside the last accepted one of its name: who and what is in it, and the time that it covers."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from elcrec.artifacts import read_json, write_json
from elcrec.data.erasure import erase_user
from elcrec.data.id_hashes import id_code
from elcrec.stages.validate import LogRefusedError
from tests.support.logs import SMALL, case, checked, written

FIRST = date(2024, 3, 1)


def rows(user: str = "u", item: str = "i", *, start: int = 0, days: int = 60, skip: range = range(0)) -> Iterator[str]:
    """Two hundred users, of whom each meets two to five of fifty items, over some days."""
    kept = [day for day in range(start, start + days) if day not in skip]
    for number in range(200):
        for step in range(2 + number % 4):
            moment = FIRST + timedelta(days=kept[(number + 5 * step) % len(kept)])
            yield f"{user}{number},{item}{(7 * number + 3 * step) % 50},{moment}"


def compared(folder: Path, first: Iterator[str], second: Iterator[str], **options: object) -> dict[str, bool]:
    """Check two versions; return the checks of the second by name, whether it was accepted or not."""
    memory = {"accepted": folder / "accepted"} | SMALL
    checked(written(folder, first), folder, **memory)
    try:
        checked(written(folder, second), folder, **memory, **options)
        report = read_json(folder / "out" / "validation.json")
    except LogRefusedError as error:
        report = read_json(error.evidence / "validation.json")
    return {check["name"]: check["passed"] for check in report["checks"]}


def failed(checks: dict[str, bool]) -> set[str]:
    return {name for name, passed in checks.items() if not passed}


def test_a_version_that_continues_the_last_log_passes_every_comparison(tmp_path: Path) -> None:
    checks = compared(tmp_path, rows(), [*rows(), *list(rows(start=60, days=10))[:30]])
    parts = {"users of the last log", "items of the last log", "newest event", "change of period", "gap in time"}
    assert parts | {"growth of the largest user"} <= set(checks)
    assert not failed(checks)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (rows("renamed"), {"users of the last log"}),
        (rows(item="renamed"), {"items of the last log", "drift of item popularity"}),
        (rows(start=-90), {"newest event"}),
        (rows(start=45, days=15), {"change of period"}),
        (rows(start=30, skip=range(50, 80)), {"gap in time"}),
        (rows(start=90), {"gap in time"}),
        ([*rows(), *(f"u1,i{n % 50},{FIRST + timedelta(days=n)}" for n in range(40))], {"growth of the largest user"}),
    ],
)
def test_each_part_of_the_comparison_is_named_by_itself(tmp_path: Path, second: Iterator[str], named: set[str]) -> None:
    assert failed(compared(tmp_path, rows(), second)) == named


def test_the_case_of_renamed_users_is_refused_as_another_log_and_can_be_accepted(tmp_path: Path) -> None:
    memory = {"accepted": tmp_path / "accepted"}
    checked(case("16_v1.csv"), tmp_path, **memory)
    with pytest.raises(LogRefusedError, match="users of the last log") as error:
        checked(case("16_v2_users_renamed.csv"), tmp_path, **memory)
    assert "fetch.file.name" in error.value.details
    assert "--accept-drift" in error.value.reason
    checked(case("16_v2_users_renamed.csv"), tmp_path, **memory, accept_drift="Ada: new ids since May")
    assert read_json(tmp_path / "out" / "validation.json")["drift_accepted"] == "Ada: new ids since May"


def test_logs_of_different_names_are_not_compared(tmp_path: Path) -> None:
    memory = {"accepted": tmp_path / "accepted"} | SMALL
    checked(written(tmp_path, rows()), tmp_path, name="shop", **memory)
    assert checked(written(tmp_path, rows("a", "b")), tmp_path, name="cinema", **memory)["warnings"] == 0
    report = read_json(tmp_path / "out" / "validation.json")
    assert (report["dataset"], report["compared_with"]) == ("cinema", None)


def test_a_log_whose_users_never_return_sets_the_least_share_to_0(tmp_path: Path) -> None:
    assert not failed(compared(tmp_path, rows(), rows("session"), min_known_users=0.0))


def test_the_profile_of_an_earlier_version_is_compared_as_far_as_possible(tmp_path: Path) -> None:
    memory = {"accepted": tmp_path / "accepted"} | SMALL
    checked(written(tmp_path, rows()), tmp_path, **memory)
    document = read_json(tmp_path / "accepted" / "profile.json")
    for name in ("known", "first", "last", "largest_user_share", "longest_gap_days"):
        del document["profile"][name]
    write_json(tmp_path / "accepted" / "profile.json", document)
    assert checked(written(tmp_path, rows("renamed")), tmp_path, **memory)["warnings"] == 0


def test_a_forgotten_user_is_removed_from_the_profile_of_the_last_log(tmp_path: Path) -> None:
    checked(written(tmp_path, rows()), tmp_path, accepted=tmp_path / "accepted", **SMALL)
    remembered = tmp_path / "accepted" / "profile.json"
    assert id_code("u7") in remembered.read_text()
    erase_user(tmp_path / "accepted", " u7", ("user_id",))
    assert id_code("u7") not in remembered.read_text()
    assert id_code("u8") in remembered.read_text()
