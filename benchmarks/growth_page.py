"""docs/SCALE.md: what the stages cost on logs of growing size, how that grows, and what it says of larger ones."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.growth import ASKED_USERS, EVENTS_A_USER, ITEMS, RECOMMENDED_USERS, STAGES, STEPS
from benchmarks.jobs import Numbers
from benchmarks.markdown import mib, seconds, table
from benchmarks.page import measured_by

Sizes = Mapping[str, Mapping[str, Any]]
"""By rows: `memory_mb`, `facts`, `stages` (numbers by stage)."""

_RAW = "raw sort and write"
_PAPER_ROWS = (10**9, 10**10)
_CORES_AN_EXECUTOR, _HOURS, _DOLLARS_A_CORE_HOUR = 8, 2, 0.05
_BATCH = 256

_HEAD = f"""# Scale

What every stage costs on random logs of growing size, as CSV: {EVENTS_A_USER} events a user, {ITEMS:,} items by Zipf's
law. A row is one run in a process of its own with one thread. *Memory* is what `engine.memory_mb` grants the engine of
validate and sequences. *Peak* is the largest resident memory of the process, with Spark of it and its Java process.
*Spill* is the most that the engine's temporary files held.

- *raw sort and write* is DuckDB alone: it reads the log, sorts it by user and time and writes Parquet, with the same
  memory.
- *train* is {STEPS} steps of {_BATCH} users with `item_updates: lazy` and `sampled_softmax`, after the log is loaded.
- *evaluate* asks {ASKED_USERS:,} users (`evaluate.users`); the weights are random, which costs the same.
- *recommend-all* answers one part of the users, about {RECOMMENDED_USERS:,} (`--part`).
- *push* brings every user into an online store of SQLite, and writes each history as it stood after each event.

The *exponent* is that of CPU time between the two largest logs: 1 is as the log grows.

Written by `python -m benchmarks.stages`; every number is in the JSON file of the same name. Nothing here is edited by
hand."""


def render(sizes: Sizes) -> str:
    """Return the page."""
    ordered = {str(rows): sizes[str(rows)] for rows in sorted(map(int, sizes))}
    parts = [_HEAD, _measured(ordered), *_growth(ordered), *_against_raw(ordered), *_paper(ordered)]
    commands = (measured_by(one["facts"]) for one in ordered.values())
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
        yield "Exponents: " + ", ".join(f"{stage} {exponent:.2f}" for stage, exponent in found.items()) + "."


def exponent_of(sizes: Sizes, stage: str) -> float | None:
    """Return how the CPU time of a stage grows between its two largest logs; `None` where there are not two."""
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


def _paper(sizes: Sizes) -> Iterator[str]:
    """Say what 10^9 and 10^10 events would take on Spark, from the largest logs that were measured on it."""
    spark = [_per_row(sizes, f"{stage} on Spark") for stage in ("validate", "sequences")]
    if None in spark:
        return
    yield f"""## On paper: beyond one machine

Calculated from the rows above, not measured. CPU time a row is that of the largest log that a stage was measured on,
times the growth of the logarithm, as of a sort. Executors have {_CORES_AN_EXECUTOR} cores and 32 GiB. There are as many
as end validate and sequences within {_HOURS} hours, and a core hour costs {_DOLLARS_A_CORE_HOUR} dollars."""
    yield table(["", *(f"{rows:,} events" for rows in _PAPER_ROWS)], list(_paper_rows(sizes)))
    yield _NEXT


def _paper_rows(sizes: Sizes) -> Iterator[list[str]]:
    def hours(stage: str, rows: int) -> float:
        cost = _per_row(sizes, stage)
        return math.nan if cost is None else cost(rows) / 3600

    sorting = [sum(hours(f"{stage} on Spark", rows) for stage in ("validate", "sequences")) for rows in _PAPER_ROWS]
    executors = [math.ceil(each / _HOURS / _CORES_AN_EXECUTOR) for each in sorting]
    users = [rows // EVENTS_A_USER for rows in _PAPER_ROWS]
    yield ["validate and sequences, core hours on Spark", *(f"{each:,.0f}" for each in sorting)]
    yield ["executors", *(f"{each:,}" for each in executors)]
    yield ["dollars", *(f"{each * _DOLLARS_A_CORE_HOUR:,.0f}" for each in sorting)]
    serial = [hours("sequences", rows) for rows in _PAPER_ROWS]
    yield ["sequences on one machine with DuckDB, hours", *(f"{each:,.1f}" for each in serial)]
    yield ["users", *(f"{each:,}" for each in users)]
    step = _step(sizes)
    if step is not None:
        yield ["an epoch on one core, hours", *(f"{each / _BATCH * step / 3600:,.0f}" for each in users)]
    answer = _per_answer(sizes)
    if answer is not None:
        yield ["recommend-all, core hours", *(f"{each * answer / 3600:,.0f}" for each in users)]
    if _per_row(sizes, "push") is not None:
        yield ["push, hours of its one process", *(f"{hours('push', rows):,.0f}" for rows in _PAPER_ROWS)]


def _per_row(sizes: Sizes, stage: str) -> Any:
    """Return the CPU seconds of a stage by rows; `None` where it was not measured."""
    measured = [int(size) for size, one in sizes.items() if stage in one["stages"]]
    if not measured:
        return None
    largest = max(measured)
    cost = sizes[str(largest)]["stages"][stage]["cpu"]
    return lambda rows: cost * rows / largest * math.log(rows) / math.log(largest)


def _step(sizes: Sizes) -> float | None:
    found = [one["stages"]["train"] for one in sizes.values() if "train" in one["stages"]]
    return found[-1]["cpu"] / found[-1]["steps"] if found else None


def _per_answer(sizes: Sizes) -> float | None:
    found = [
        (int(size), one["stages"]["recommend-all"]) for size, one in sizes.items() if "recommend-all" in one["stages"]
    ]
    if not found:
        return None
    rows, numbers = found[-1]
    return float(numbers["cpu"] / (rows / EVENTS_A_USER / numbers["parts"]))


_NEXT = """What breaks next, in this order:

1. *The driver's fold.* Spark sorts, but the sorted rows are folded into sequences by the driver in one thread: about
   the row of DuckDB above less its sort. The remedy is to fold inside partitions that are cut between users.
2. *The offsets of training.* `train`, `evaluate` and `push` hold 20 bytes a user (and map the items from disk): 2 GB at
   10^9 events, 20 GB at 10^10.
3. *One process that publishes.* A push is one process; beyond 10^8 users the online store has to be filled by many.
4. *Histories for training by time.* `history_rows.parquet` has a row an event, so it grows with the log times the mean
   history."""
