"""docs/BENCHMARKS.md, rendered from the JSON file beside it; nothing on the page is written by hand."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.markdown import prose
from benchmarks.measurements import Section
from benchmarks.sections import CHART, WRITERS, draw_users
from elcrec.artifacts import SCHEMA_VERSION, atomic_file, read_json, write_json

_HEAD = """# Benchmarks

These figures compare our engine with `benchmarks/textbook.py`: the same method and hyper-parameters, written as most
people would write them. It pads sequences to the window, draws negatives and views in Python, uses plain attention and
takes five encoder passes per step.

- Every run is a fresh process with the same number of threads. The engines take turns (A B, B A, …); a figure is the
  median of the runs, with the lowest and highest beside it.
- *CPU seconds* are the user and system time of all threads of the process. Other work on the machine disturbs them
  least.
- A *ratio* is the textbook's figure divided by ours: above 1, ours costs less. It compares CPU seconds, or wall seconds
  if a GPU does the work.
- If only a part of an epoch was run, the table says how many steps; the cost of the epoch is calculated from them.
- The figures of the published code are for reference. They come from another machine (one thread of a 2-core AVX2
  server CPU), so there is no ratio for them.

Written by `python -m benchmarks`; every run's numbers are in the JSON file of the same name. Nothing here is edited by
hand."""


def record(out: Path, name: str, section: Section) -> None:
    """Add a section to the numbers and write the page again.

    Args:
        out: the page; the numbers are beside it, the chart is in images/.
        name: name of the measurement.
        section: its result, with `facts` of the machine.
    """
    numbers = numbers_of(out)
    sections = read_json(numbers)["sections"] if numbers.is_file() else {}
    sections = {**sections, name: section}
    write_json(numbers, {"schema_version": SCHEMA_VERSION, "sections": sections})
    if "users" in sections:
        with atomic_file(out.parent / "images" / CHART) as temporary:
            temporary.write_text(draw_users(sections["users"]), encoding="utf-8")
    with atomic_file(out) as temporary:
        temporary.write_text(render(sections), encoding="utf-8")


def numbers_of(page: Path) -> Path:
    """Return the file of a page's numbers: docs/benchmarks.json for docs/BENCHMARKS.md."""
    return page.with_name(f"{page.stem.lower()}.json")


def render(sections: Mapping[str, Section]) -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, (title, write) in WRITERS.items():
        if name in sections:
            section = sections[name]
            parts += [f"## {title}", *write(section), measured_by(section["facts"])]
    return "\n\n".join(parts) + "\n"


def measured_by(facts: Mapping[str, str]) -> str:
    """Return the paragraph on command, machine and time."""
    said = "; ".join(f"{name}: {value}" for name, value in facts.items() if name != "command")
    return prose(f"*Measured by `{facts['command']}`. {said}.*")
