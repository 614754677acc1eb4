"""The whole loop: a drift is noticed; a model is trained, judged, tested beside the old one and promoted."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulation.__main__ import main

pytestmark = pytest.mark.slow

DRIFT, DAYS = 9, 25
SHORTER = (
    "monitor.reference_days=6",
    "train.epochs=6",
    "evaluate.bootstrap=20",
    "promote.min_days=2",
    "promote.min_users=80",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulation") / "month"
    options = ["--days", str(DAYS), "--drift-day", str(DRIFT), "--users", "4000", "--out", str(out)]
    assert main([*options, *(f"--set={each}" for each in SHORTER)]) == 0
    return out


@pytest.fixture(scope="module")
def month(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "simulation.json").read_text())
    return found


def first(month: dict[str, Any], note: str) -> int:
    return next(day["number"] for day in month["days"] if note in day["notes"])


def ctr(month: dict[str, Any], since: int, until: int) -> float:
    rates = [day["ctr"] for day in month["days"] if since <= day["number"] < until]
    return sum(rates) / len(rates)


def test_the_monitor_notices_the_drift_within_three_days_and_nothing_before_it(month: dict[str, Any]) -> None:
    assert DRIFT <= first(month, "retrain") < DRIFT + 3
    assert {day["verdict"] for day in month["days"] if day["number"] < DRIFT} <= {"learning", "fine"}


def test_shadow_split_and_promotion_follow(month: dict[str, Any]) -> None:
    modes = [day["mode"] for day in month["days"]]
    promoted = first(month, "promote")

    assert modes.index("off") < modes.index("shadow") < modes.index("split") < promoted
    assert [day["version"] for day in month["days"]] == ["1"] * promoted + ["2"] * (DAYS - promoted)


def test_the_click_rate_recovers(month: dict[str, Any]) -> None:
    before, after = ctr(month, 1, DRIFT), ctr(month, DRIFT, first(month, "retrain") + 1)
    recovered = ctr(month, first(month, "promote") + 1, DAYS + 1)

    assert after < 0.85 * before
    assert recovered > after + 0.4 * (before - after)


def test_the_gate_has_the_new_model_on_the_log_of_the_old_one(month: dict[str, Any]) -> None:
    found = month["gate"]["on_the_log"]

    assert found["champion"] == "1"
    assert found["answers"] > 100
    assert found["estimates"]["doubly_robust"]["low"] > 0


def test_the_page_shows_the_days_and_needs_no_network(folder: Path) -> None:
    page = (folder / "simulation.html").read_text(encoding="utf-8")

    assert f"{DAYS} days in the life of a recommender" in page
    assert "taste drifts" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "<script" not in page


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all my work", encoding="utf-8")

    assert main(["--out", str(tmp_path)]) == 2
    assert (tmp_path / "thesis.txt").exists()
