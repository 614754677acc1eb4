"""The page of scale says what its numbers say; the numbers here are made up."""

from benchmarks.stages import render

FACTS = {"processor": "a made-up one", "command": "python -m benchmarks.stages --rows 100 10000"}


def _one(cpu: float) -> dict[str, float]:
    return {"log_mib": 10.0, "cpu": cpu, "wall": 2 * cpu, "peak_mib": 512.4, "spilled_mib": 7.0}


def test_a_row_holds_a_run_and_the_exponent_is_how_the_cost_grows() -> None:
    runs = {
        "100": {"validate": _one(2.0), "sequences": _one(3.0)},
        "10000": {"validate": _one(20.0), "sequences": _one(3.0)},
    }

    page = render(runs, 1000, FACTS)

    assert "| validate | 10,000 | 10 | 20.0 | 40.0 | 512 | 7 |" in page
    assert "Exponents: validate 0.50, sequences 0.00." in page
    assert f"`{FACTS['command']}`" in page


def test_one_size_has_no_exponent() -> None:
    assert "Exponents" not in render({"100": {"validate": _one(1.0)}}, 300, FACTS)
