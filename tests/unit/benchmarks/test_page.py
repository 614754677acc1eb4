"""The page shows the numbers correctly; the numbers here are invented."""

import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import markdown
from benchmarks.jobs import Numbers
from benchmarks.machine import facts
from benchmarks.measurements import COMPILED, Section
from benchmarks.page import numbers_of, record, render
from benchmarks.runner import medians
from benchmarks.sections import CHART, epoch_seconds
from benchmarks.serving_sections import crossover
from elcrec.artifacts import read_json

RATES = {"device": "cpu", "square_gflops": 100.0}
ROOT = Path(__file__).parents[3]
FACTS = {"processor": "a made-up one", "date": "2026-01-01", "command": "python -m benchmarks --pairs 2"}


def run(cpu: float, *, steps: int = 10, whole: int = 10, mib: float = 500.0, between: float = 0.5) -> Numbers:
    return {
        "steps": steps,
        "whole": whole,
        "steps_cpu": cpu,
        "steps_wall": 2 * cpu,
        "between_cpu": between,
        "between_wall": between,
        "before_cpu": 1.0,
        "imported_mib": 300.0,
        "steps_mib": mib,
        "total_mib": mib + 100,
    }


def train_section(dataset: str = "beauty") -> Section:
    textbook = [run(20.0, steps=2, mib=1300.0), run(24.0, steps=2, mib=1300.0)]
    runs = {"ours": [run(9.0), run(11.0)], COMPILED: [run(12.0), run(12.0)], "textbook": textbook}
    return {"dataset": dataset, "facts": FACTS, "runs": runs}


def on_gpu(section: Section) -> Section:
    """Return the section as if a GPU had done the work."""
    for one in (one for runs in section["runs"].values() for one in runs):
        one |= {"gpu_mib": 1000.0, "gpu_busy": 0.25, "first_wall": 16.0}
    return section


def cells(page: str, start: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with `start`."""
    rows = [line for line in page.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_training_table_scales_a_part_to_an_epoch_and_draws_the_ratio() -> None:
    training, memory = cells(render({"train": train_section()}), "ours")
    assert training[2:] == ["10 of 10", "10.0", "20.0", "9.00 to 11.0, 2 runs", "11.0x"]
    assert memory[1:] == ["500", "300", "200", "5.0x", "600"]
    training, _ = cells(render({"train": train_section()}), "textbook")
    assert training[2:] == ["2 of 10, scaled", "110.0", "220.0", "100.0 to 120.0, 2 runs", ""]


def test_published_figures_are_shown_only_for_beauty_on_a_cpu() -> None:
    sections = (train_section(), train_section("sample"), on_gpu(train_section()))
    beauty, sample, gpu = (render({"train": one}) for one in sections)
    assert "| published code, for reference | ELCRec, on another machine |  | 118.0 |" in beauty
    assert "| published code" not in sample + gpu
    assert "| ours | 1,000 | 25.0% |" in gpu


def test_on_a_gpu_wall_seconds_are_compared() -> None:
    section = on_gpu(train_section())
    for one in section["runs"]["textbook"]:
        one["steps_wall"] = 100.0
    page = render({"train": section})
    assert "ratio (Wall)" in page
    assert cells(page, "ours")[0][2:] == ["10 of 10", "10.0", "20.0", "18.0 to 22.0, 2 runs", "25.0x"]


def test_gpu_numbers_of_earlier_runs_lack_what_was_not_measured_then() -> None:
    section = on_gpu(train_section())
    assert cells(render({"train": section}), "ours")[1][1:] == ["1,000", "25.0%", "16.0"]
    for one in (one for runs in section["runs"].values() for one in runs):
        del one["first_wall"]
    assert cells(render({"train": section}), "ours")[1][1:] == ["1,000", "25.0%", ""]


@pytest.mark.parametrize("numbers", sorted((ROOT / "docs").glob("benchmarks*.json")), ids=lambda path: path.stem)
def test_the_pages_equal_a_rendering_of_their_numbers(numbers: Path) -> None:
    page = numbers.with_name(f"{numbers.stem.upper()}.md")
    assert page.read_text(encoding="utf-8") == render(read_json(numbers)["sections"])


def test_the_ranking_table_scales_to_all_users() -> None:
    one = {"users": 100, "whole": 200, "cpu": 1.0, "wall": 1.5}
    runs = {"ours": [one], "textbook": [one | {"cpu": 4.0}]}
    page = render({"rank": {"dataset": "toys", "facts": FACTS, "runs": runs}})
    assert cells(page, "ours")[0][1:] == ["100 of 200", "2.00", "3.00", "one run", "4.0x"]


def test_an_epoch_of_an_objective_counts_what_is_done_between_epochs() -> None:
    runs = {"elcrec, ours": [run(10.0)], "elcrec, textbook": [run(31.0)], "iclrec, textbook": [run(31.0, between=9.0)]}
    section: Section = {"dataset": "toys", "facts": FACTS, "runs": runs}
    page = render({"objectives": section})
    ours, textbook = cells(page, "elcrec")
    assert ours[1:] == ["ours", "10 of 10", "10.0", "0.50", "10.5", "3.0x"]
    assert textbook[-2:] == ["31.5", ""]
    assert cells(page, "iclrec")[0][3:6] == ["31.0", "9.00", "40.0"]


def test_serving_shows_ratios_to_the_plain_server_and_all_users_at_once() -> None:
    one = {"requests": 100, "failed": 0, "per_second": 900.0, "p50_ms": 1.0, "p99_ms": 2.0, "server_cpu_ms": 0.5}
    runs = {"redis, ours, fast": [one], "redis, plain, fast": [one | {"per_second": 100.0, "server_cpu_ms": 5.5}]}
    batch = [{"users": 50, "seconds": s, "command_seconds": 2 * s} for s in (1.0, 3.0, 2.0)]
    page = render({"serving": {"dataset": "toys", "facts": FACTS, "runs": runs, "batch": batch}})
    assert cells(page, "redis, ours, fast")[0][-2:] == ["9.0x", "11.0x"]
    assert cells(page, "50")[0][1:] == ["2.00", "1.00 to 3.00, 3 runs", "4.00"]


def test_publishing_shows_users_per_second_and_own_memory() -> None:
    runs = {"redis": [{"seconds": 20.0, "before_mib": 300.0, "peak_mib": 450.0}]}
    page = render({"features": {"facts": FACTS, "counts": {"users": 1000, "items": 10}, "runs": runs}})
    assert cells(page, "redis")[0][1:] == ["20.0", "50", "150", "300"]


def test_a_component_is_shown_beside_its_stage() -> None:
    runs = {"train": [{"component": 3.0, "command": 2.5, "call": 1.0}]}
    page = render({"components": {"facts": FACTS, "runs": runs, "compile": [{"seconds": 2.0}]}})
    assert cells(page, "train")[0][1:] == ["3.00", "2.50", "0.50", "1.00", "2.00"]
    assert "the whole command: 2.00 s" in page


def test_a_section_replaces_its_predecessor_and_leaves_the_others(tmp_path: Path) -> None:
    users: Section = {"facts": FACTS, "runs": {f"elcrec, {n} users": [run(n / 100)] for n in (1000, 10_000)}}
    out = tmp_path / "docs" / "BENCHMARKS.md"
    record(out, "users", users)
    record(out, "train", train_section("sample"))
    record(out, "train", train_section("toys"))
    assert list(read_json(numbers_of(out))["sections"]) == ["users", "train"]
    page = out.read_text()
    assert "epoch on toys" in page
    assert "epoch on sample" not in page
    assert f"](images/{CHART})" in page
    assert page.count("*Measured by `python -m benchmarks --pairs 2`. processor: a made-up one") == 2


def test_the_chart_is_one_xml_document_with_a_point_for_each_size(tmp_path: Path) -> None:
    runs = {f"{name}, {n} users": [run(n / 100)] for name in ("elcrec", "iclrec") for n in (1000, 10_000, 100_000)}
    record(tmp_path / "BENCHMARKS.md", "users", {"facts": FACTS, "runs": runs})
    root = ET.parse(tmp_path / "images" / CHART).getroot()
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert tags.count("polyline") == 4
    assert tags.count("circle") == 12
    texts = [element for element in root.iter() if element.tag.endswith("text")]
    names = {element.text: float(element.attrib["y"]) for element in texts if "rec, " in (element.text or "")}
    assert len(names) == 4
    assert min(abs(a - b) for a in names.values() for b in names.values() if a != b) >= 15


def test_a_page_names_no_folder_of_the_machine() -> None:
    said = facts(["-m", "benchmarks", "--model", "/somewhere/model", "--out", "docs/x.md"], 1, RATES)
    assert said["command"] == "python -m benchmarks --model model --out docs/x.md"


def test_medians_are_taken_number_by_number() -> None:
    assert medians([{"a": 1.0, "b": 9, "c": "x"}, {"a": 5.0, "b": 7}, {"a": 2.0, "b": 8}]) == {"a": 2.0, "b": 8}


def test_time_between_epochs_is_not_scaled() -> None:
    assert epoch_seconds(run(2.0, steps=5, whole=50, between=3.0), between=True) == pytest.approx(23.0)


def test_columns_of_numbers_are_aligned_right() -> None:
    assert (
        markdown.table(["a", "b"], [["x", "1,000.5"], ["y", ""]]) == "| a | b |\n| - | -: |\n| x | 1,000.5 |\n| y |  |"
    )


def test_benchmarks_are_no_part_of_the_installed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["src/elcrec", "components", "pipelines"]


def test_the_crossover_is_where_both_searches_cost_the_same() -> None:
    linear = {size: {"one": size / 1e6, "near_one": 0.03} for size in (1_000, 10_000, 100_000, 1_000_000)}

    assert crossover(linear, "one") == pytest.approx(30_000)
    assert crossover({1_000: linear[1_000]}, "one") is None
    assert crossover({100_000: linear[100_000]}, "one") == 100_000
    runs = {
        f"{size:,}": [one | {"batch": 1.0, "near_batch": 2.0, "recall": 0.987, "build": 3.0}]
        for size, one in linear.items()
    }
    page = render({"search": {"facts": FACTS, "runs": runs}})
    assert "from about 30,000 items on for a request alone, and at none of these sizes in a batch of 64" in page
    assert "| 100,000 | 100.00 | 30.00 | 15.62 | 31.25 | 0.987 | 3.00 |" in page
