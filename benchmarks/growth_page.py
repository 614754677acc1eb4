"""docs/SCALE.md: the cost of the stages on logs of growing size, its growth, and an estimate for larger logs."""

import math
from collections.abc import Iterator, Mapping

from benchmarks.growth import ASKED_USERS, EVENTS_A_USER, ITEMS, RECOMMENDED_USERS, STAGES, STEPS
from benchmarks.growth_paper import BATCH, Sizes, paper
from benchmarks.jobs import Numbers
from benchmarks.markdown import mib, prose, seconds, table
from benchmarks.page import measured_by

_RAW = "raw sort and write"

_HEAD = f"""# Scale

What every stage costs on random logs of growing size, as CSV: {EVENTS_A_USER} events a user, {ITEMS:,} items by Zipf's
law. A row is one run in a process of its own with one thread. *Memory* is what `engine.memory_mb` grants the engine of
validate and sequences. *Peak* is the largest resident memory of the process. With Spark, CPU time and peak are those of
the process and its Java process. *Spill* is the most that the engine's temporary files held.

- *raw sort and write* is DuckDB alone: it reads the log, sorts it by user and time and writes Parquet, with the same
  memory.
- *train* is {STEPS} steps of {BATCH} users with `item_updates: lazy` and `sampled_softmax`, after the log is loaded.
- *evaluate* asks {ASKED_USERS:,} users (`evaluate.users`); the weights are random, which costs the same.
- *recommend-all* answers one part of the users, about {RECOMMENDED_USERS:,} (`--part`).
- *push* brings every user into an online store of SQLite, and writes each history as it stood after each event.

The *exponent* is that of CPU time between the two largest logs: 1 is as the log grows.

Written by `python -m benchmarks.stages`; every number is in the JSON file of the same name. Nothing here is edited by
hand."""


def render(sizes: Sizes) -> str:
    """Return the page."""
    ordered = {str(rows): sizes[str(rows)] for rows in sorted(map(int, sizes))}
    parts = [_HEAD, _measured(ordered), *_growth(ordered), *_against_raw(ordered), *paper(ordered)]
    commands = (measured_by(facts) for one in ordered.values() for facts in one["runs"])
    return "\n\n".join([*parts, *dict.fromkeys(commands)]) + "\n"


def _measured(sizes: Sizes) -> str:
    head = ["stage", "rows", "memory MB", "CPU s", "wall s", "peak MiB", "spill MiB"]
    rows = [
        [
            stage,
            f"{int(size):,}",
            f"{one['memory_mb']:,}",
            seconds(numbers["cpu"]),
            seconds(numbers["wall"]),
            mib(numbers["peak_mib"]),
            mib(numbers.get("spilled_mib", 0.0)),
        ]
        for stage in STAGES
        for size, one in sizes.items()
        for numbers in [one["stages"].get(stage)]
        if numbers is not None
    ]
    return table(head, rows)


def _growth(sizes: Sizes) -> Iterator[str]:
    found = {stage: exponent for stage in STAGES if (exponent := exponent_of(sizes, stage)) is not None}
    if found:
        yield prose("Exponents: " + ", ".join(f"{stage} {exponent:.2f}" for stage, exponent in found.items()) + ".")


def exponent_of(sizes: Sizes, stage: str) -> float | None:
    """Return the exponent of a stage's CPU time between its two largest logs; `None` if there are not two."""
    costs = {int(size): one["stages"][stage]["cpu"] for size, one in sizes.items() if stage in one["stages"]}
    if len(costs) < 2:  # noqa: PLR2004 - two points make a line
        return None
    (less, lower), (more, higher) = sorted(costs.items())[-2:]
    return math.log(higher / lower) / math.log(more / less)


def _against_raw(sizes: Sizes) -> Iterator[str]:
    rows = [
        [f"{int(size):,}", *(_times(one["stages"], stage) for stage in ("validate", "sequences"))]
        for size, one in sizes.items()
        if _RAW in one["stages"]
    ]
    if rows:
        yield "CPU time over that of the raw sort and write of the same run:"
        yield table(["rows", "validate", "sequences"], rows)


def _times(stages: Mapping[str, Numbers], stage: str) -> str:
    return f"{stages[stage]['cpu'] / stages[_RAW]['cpu']:.1f}x" if stage in stages else ""
