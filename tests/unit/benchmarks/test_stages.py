"""The page of scale says what its numbers say; the numbers here are made up."""

from typing import Any

from benchmarks.growth_page import exponent_of, render

FACTS = {"processor": "a made-up one", "command": "python -m benchmarks.stages --rows 100 10000"}


def one(memory_mb: int = 1000, **cpu: float) -> dict[str, Any]:
    """A size whose stages cost so much; a double underscore stands for a blank."""
    stages = {
        stage.replace("__", " "): {"cpu": value, "wall": 2 * value, "peak_mib": 512.4, "spilled_mib": 7.0}
        for stage, value in cpu.items()
    }
    return {"memory_mb": memory_mb, "facts": FACTS, "stages": stages}


def test_a_row_holds_a_run_and_the_exponent_is_how_the_cost_grows() -> None:
    sizes = {"10000": one(2000, validate=20.0, sequences=3.0), "100": one(validate=2.0, sequences=3.0)}

    page = render(sizes)

    assert "| validate | 10,000 | 2,000 | 20.0 | 40.0 | 512 | 7 |" in page
    assert page.index("| validate | 100 |") < page.index("| validate | 10,000 |")
    assert "Exponents: validate 0.50, sequences 0.00." in page
    assert page.count(f"`{FACTS['command']}`") == 1


def test_the_exponent_is_that_of_the_two_largest_logs() -> None:
    sizes = {"10": one(validate=9.0), "100": one(validate=1.0), "1000": one(validate=10.0)}
    assert exponent_of(sizes, "validate") == 1.0


def test_one_size_has_no_exponent() -> None:
    assert "Exponents" not in render({"100": one(300, validate=1.0)})


def test_stages_are_compared_with_the_raw_sort_of_their_run() -> None:
    page = render({"100": one(raw__sort__and__write=2.0, validate=3.0, sequences=5.0)})
    assert "| 100 | 1.5x | 2.5x |" in page


def test_larger_logs_are_calculated_from_what_spark_took() -> None:
    spark = {"validate__on__Spark": 900.0, "sequences__on__Spark": 900.0}
    page = render({"100000": one(**spark), "1000000000": one(sequences=3600.0, **spark)})
    assert "| validate and sequences, core hours on Spark | 0 | 6 |" in page
    assert "| sequences on one machine with DuckDB, hours | 1.0 | 11.1 |" in page
