"""docs/BENCHMARKS.md, rendered from the JSON file beside it; nothing on the page is written by hand."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.markdown import prose
from benchmarks.measurements import Section
from benchmarks.sections import CHART, WRITERS, draw_users
from elcrec.artifacts import SCHEMA_VERSION, atomic_file, read_json, write_json

_HEAD = """# Benchmarks

Our engine beside `benchmarks/textbook.py`: the same method and hyper-parameters as most people would write them, with
sequences padded to the window, a data set that draws negatives and views in Python, plain attention and five encoder
passes a step.

- Every run is a fresh process with the same number of threads. The engines take turns (A B, B A, …); a figure is the
  median of the runs, with the lowest and highest beside it.
- *CPU seconds* are user and system time of all threads of the process: what other work on the machine disturbs least.
- A *ratio* is the textbook's figure over ours: above 1 we are cheaper. It is of CPU seconds, or of wall seconds where a
  GPU does the work.
- Where an epoch was run in part, its cost is that of the steps that were run times the number of steps, and the table
  says how many were run.
- The published code's figures are for reference: they come from another machine (one thread of a 2-core AVX2 server
  CPU), so no ratio is drawn with them.

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
