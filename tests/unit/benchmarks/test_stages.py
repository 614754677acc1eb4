"""The page on scale shows its numbers correctly; the numbers here are invented."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import stages
from benchmarks.growth import family_of
from benchmarks.growth_page import exponent_of, render
from benchmarks.growth_paper import SPARK_OVER_DUCKDB, executors_for, spark_hours
from benchmarks.machine import cpu_of

FACTS = {"processor": "a made-up one", "command": "python -m benchmarks.stages --rows 100 10000"}


def one(memory_mb: int = 1000, **cpu: float) -> dict[str, Any]:
    """A size whose stages cost so much; a double underscore stands for a blank."""
    stages = {
        stage.replace("__", " "): {"cpu": value, "wall": 2 * value, "peak_mib": 512.4, "spilled_mib": 7.0}
        for stage, value in cpu.items()
    }
    return {"memory_mb": memory_mb, "runs": [FACTS], "stages": stages}


def test_a_row_is_a_run_and_the_exponent_is_that_of_its_cost() -> None:
    sizes = {"10000": one(2000, validate=20.0, sequences=3.0), "100": one(validate=2.0, sequences=3.0)}

    page = render(sizes)

    assert "| validate | 10,000 | 2,000 | 20.0 | 40.0 | 512 | 7 |" in page
    assert page.index("| validate | 100 |") < page.index("| validate | 10,000 |")
    assert "Exponents: validate 0.50, sequences 0.00." in page
    assert page.count(f"`{FACTS['command']}`") == 1


def test_a_run_that_resumes_another_is_named_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"cpu": 1.0, "wall": 2.0, "peak_mib": 3.0, "spilled_mib": 0.0}
    monkeypatch.setattr(stages, "prepare", lambda log: None)
    monkeypatch.setattr(stages, "measure", lambda log, stage: numbers)
    page = tmp_path / "SCALE.md"
    asked = ["--rows", "100", "--out", str(page), "--folder", str(tmp_path), "--keep"]

    assert stages.main([*asked, "--stages", "validate", "sequences"]) == 0
    assert page.read_text(encoding="utf-8").count("*Measured by") == 1
    assert stages.main([*asked, "--stages", "validate", "push"]) == 0

    text = page.read_text(encoding="utf-8")
    assert [text.count(f"| {stage} | 100 |") for stage in ("validate", "sequences", "push")] == [1, 1, 1]
    runs = text[text.index("*Measured by") :].split("*Measured by")[1:]
    assert ["--stages validate" in " ".join(run.split()) for run in runs] == [True, True]
    assert ["sequences" in runs[0], "push" in runs[1]] == [True, True]


def test_the_exponent_is_that_of_the_two_largest_logs() -> None:
    sizes = {"10": one(validate=9.0), "100": one(validate=1.0), "1000": one(validate=10.0)}
    assert exponent_of(sizes, "validate") == 1.0


def test_a_single_size_has_no_growth_exponent() -> None:
    assert "Exponents" not in render({"100": one(300, validate=1.0)})


def test_stages_are_compared_with_the_raw_sort_of_their_run() -> None:
    page = render({"100": one(raw__sort__and__write=2.0, validate=3.0, sequences=5.0)})
    assert "| 100 | 1.5x | 2.5x |" in page


def test_larger_logs_are_calculated_from_what_spark_took() -> None:
    spark = {"validate__on__Spark": 900.0, "sequences__on__Spark": 900.0}
    page = render({"100000": one(**spark), "1000000000": one(sequences=3600.0, **spark)})
    assert "| validate and sequences, core hours on Spark | 0 | 6 |" in page
    assert "| sequences on one machine with DuckDB, hours | 1.0 | 11.1 |" in page


def test_what_larger_logs_take_follows_from_the_largest_measured_one() -> None:
    hours = 1000 * math.log(10**10) / math.log(10**8)
    sizes = {
        "10000": one(validate__on__Spark=1e9),
        "100000000": one(validate__on__Spark=18_000.0, sequences__on__Spark=18_000.0),
    }

    assert spark_hours(sizes, 10**10) == pytest.approx(hours)
    assert executors_for(hours) == math.ceil(hours / 16)
    page = render(sizes)
    assert f"| dollars | 6 | {hours * 0.05:,.0f} |" in page
    assert "Spark's CPU time is measured." in page
    assert "| input, GB | 26 | 270 |" in page, "8 or 9 digits of a user, 5 of an item, 10 of a time, 3 separators"
    assert "| shuffled, GB | 128 | 1,280 |" in page
    assert "| written, GB | 40 | 400 |" in page


def test_without_spark_its_cost_is_a_stated_multiple_of_duckdb() -> None:
    sizes = {"1000000000": one(validate=3600.0, sequences=1800.0)}

    page = render(sizes)

    assert f"| validate and sequences, core hours on Spark | {1.5 * SPARK_OVER_DUCKDB:.0f} |" in page
    assert f"is taken for {SPARK_OVER_DUCKDB} times DuckDB's" in page


def test_what_breaks_next_is_counted() -> None:
    page = render({"1000000000": one(validate=3600.0, sequences=3600.0)})

    said = " ".join(page.split())
    assert (
        "2.56 GB, Adam's two moments 5.12 GB more, and with the mean of the weights and the best so far 12.8 GB" in said
    )
    assert "there are 1,000 and 10,000" in page
    assert "2 GB at 10^9 events, 20 GB at 10^10" in page
    assert "up to 11 hours at 10^10 events" in page


def test_a_log_without_its_sort_gives_no_estimate() -> None:
    assert "On paper" not in render({"100": one(validate=1.0)})


def test_the_time_of_a_grandchild_counts_that_nobody_waits_for() -> None:
    """Spark's Java process is such a one."""
    burn = "sum(i * i for i in range(6_000_000)); print(flush=True); input()"
    started_by_a_thread = f"""
import subprocess, sys, threading
def start():
    child = subprocess.Popen([sys.executable, "-c", {burn!r}], stdin=sys.stdin)
threading.Thread(target=start).start()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", started_by_a_thread + "import time; time.sleep(60)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = list(family_of(parent.pid))
        spent = [cpu_of(pid) for pid in family]
        parent.kill()
    assert len(family) == 2
    assert spent[1] > 0.2
