"""The estimated cost of logs of 10^9 and 10^10 events, from the largest measured logs."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.growth import EVENTS_A_USER, ITEMS, RECOMMENDED_USERS
from benchmarks.markdown import table

Sizes = Mapping[str, Mapping[str, Any]]
"""Measurements by number of rows: `memory_mb`, `runs` (the facts of each), `stages` (numbers by stage)."""

BATCH = 256
"""Users of a training step."""
PAPER_ROWS = (10**9, 10**10)
CORES, GIB_AN_EXECUTOR, HOURS, DOLLARS_A_CORE_HOUR = 8, 32, 2, 0.05
SPARK_OVER_DUCKDB = 8
"""CPU time of Spark relative to DuckDB, used if it was not measured."""
SHUFFLED_BYTES, SHUFFLES, WRITTEN_BYTES = 64, 2, 40
ONLINE_BYTES = 1000
LARGE_CATALOGUE, WIDTH, COPIES = 10**7, 64, 5
"""Number of items, width of vectors, and copies in training: weights, two moments, mean, best so far."""

_SORTING = ("validate", "sequences")
_GB, _HOUR, _FLOAT = 1e9, 3600, 4
_TIME_DIGITS, _SEPARATORS = 10, 3

Cost = Callable[[int], float]
"""Function from the number of rows to CPU seconds."""


def paper(sizes: Sizes) -> Iterator[str]:
    """Return the section on the estimated cost, as far as the measured stages allow."""
    spark = {stage: spark_cost(sizes, stage) for stage in _SORTING}
    if None in spark.values():
        return
    measured = all(cost_of(sizes, f"{stage} on Spark") is not None for stage in _SORTING)
    yield f"""## On paper: 10^9 and 10^10 events

Calculated from the rows above, not measured:

- CPU time is that of the largest log that a stage was measured on, times the rows and their logarithm, as of a sort.
- {_about_spark(measured)}
- An executor has {CORES} cores and {GIB_AN_EXECUTOR} GiB, and all its cores work. There are as many executors as
  Spark's part of validate and sequences needs to end within {HOURS} hours. A core hour costs
  {DOLLARS_A_CORE_HOUR} dollars.
- Input is the CSV that was measured. A shuffled row has {SHUFFLED_BYTES} bytes and is shuffled {SHUFFLES} times: by
  what makes a copy, and by user and time. What both stages write has {WRITTEN_BYTES} bytes an event.
- Rows come sorted to one process, which folds them: that takes no longer than all of sequences with DuckDB."""
    yield table(["", *(f"{rows:,} events" for rows in PAPER_ROWS)], list(_rows(sizes)))
    yield _next(sizes)


def cost_of(sizes: Sizes, stage: str) -> Cost | None:
    """Return the cost of a stage by rows, from its largest measured log; `None` if it was not measured."""
    measured = [int(size) for size, one in sizes.items() if stage in one["stages"]]
    if not measured:
        return None
    largest = max(measured)
    cost = float(sizes[str(largest)]["stages"][stage]["cpu"])
    return lambda rows: cost * rows / largest * math.log(rows) / math.log(largest)


def spark_cost(sizes: Sizes, stage: str) -> Cost | None:
    """Return the cost of a stage on Spark, measured or assumed; `None` if it was measured on no engine."""
    measured, duckdb = cost_of(sizes, f"{stage} on Spark"), cost_of(sizes, stage)
    if measured is not None or duckdb is None:
        return measured
    return lambda rows: SPARK_OVER_DUCKDB * duckdb(rows)


def spark_hours(sizes: Sizes, rows: int) -> float:
    """Return the core hours of validate and sequences on Spark."""
    costs = (spark_cost(sizes, stage) for stage in _SORTING)
    return sum(cost(rows) for cost in costs if cost is not None) / _HOUR


def executors_for(core_hours: float) -> int:
    """Return the number of executors needed to finish in time."""
    return max(1, math.ceil(core_hours / HOURS / CORES))


def input_bytes(rows: int) -> int:
    """Return the size of a log as CSV: numbers of users and items as written, a time in seconds, separators."""
    digits = len(str(rows // EVENTS_A_USER - 1)) + len(str(ITEMS - 1))
    return rows * (digits + _TIME_DIGITS + _SEPARATORS)


def _about_spark(measured: bool) -> str:
    if measured:
        return "Spark's CPU time is measured."
    return f"""Spark was not measured in this run. Its CPU time is taken for {SPARK_OVER_DUCKDB} times DuckDB's, as an
  earlier run on 10^7 events gave 7.8 for validate and 6.7 for sequences."""


def _rows(sizes: Sizes) -> Iterator[list[str]]:
    sorting = [spark_hours(sizes, rows) for rows in PAPER_ROWS]
    executors = [executors_for(each) for each in sorting]
    shuffled, written = SHUFFLED_BYTES * SHUFFLES / _GB, WRITTEN_BYTES / _GB
    yield ["input, GB", *(f"{input_bytes(rows) / _GB:,.0f}" for rows in PAPER_ROWS)]
    yield ["shuffled, GB", *(f"{rows * shuffled:,.0f}" for rows in PAPER_ROWS)]
    yield ["written, GB", *(f"{rows * written:,.0f}" for rows in PAPER_ROWS)]
    yield ["validate and sequences, core hours on Spark", *(f"{each:,.0f}" for each in sorting)]
    yield ["executors", *(f"{each:,}" for each in executors)]
    yield ["hours on them", *(f"{each / CORES / n:,.1f}" for each, n in zip(sorting, executors, strict=True))]
    yield ["dollars", *(f"{each * DOLLARS_A_CORE_HOUR:,.0f}" for each in sorting)]
    yield from _serial(sizes, "sequences", "sequences on one machine with DuckDB, hours", ".1f")
    users = [rows // EVENTS_A_USER for rows in PAPER_ROWS]
    yield ["users", *(f"{each:,}" for each in users)]
    step, answer = _step(sizes), _per_answer(sizes)
    if step is not None:
        yield ["an epoch on one core, hours", *(f"{each / BATCH * step / _HOUR:,.0f}" for each in users)]
    if answer is not None:
        yield ["recommend-all, core hours", *(f"{each * answer / _HOUR:,.0f}" for each in users)]
    yield from _serial(sizes, "push", "push, hours of its one process", ",.0f")


def _serial(sizes: Sizes, stage: str, name: str, form: str) -> Iterator[list[str]]:
    cost = cost_of(sizes, stage)
    if cost is not None:
        yield [name, *(f"{cost(rows) / _HOUR:{form}}" for rows in PAPER_ROWS)]


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


def _next(sizes: Sizes) -> str:
    some, many = (rows // EVENTS_A_USER for rows in PAPER_ROWS)
    offsets = [20 * users / _GB for users in (some, many)]
    online = [ONLINE_BYTES * users / _GB for users in (some, many)]
    items = LARGE_CATALOGUE * WIDTH * _FLOAT / _GB
    parts = [users // RECOMMENDED_USERS for users in (some, many)]
    fold = cost_of(sizes, "sequences")
    hours = "" if fold is None else f": up to {fold(PAPER_ROWS[1]) / _HOUR:,.0f} hours at 10^10 events"
    return f"""What breaks next, in this order:

1. *The one process behind Spark.* Spark sorts, but one process folds the sorted rows into
   sequences{hours}. The remedy is to fold inside partitions that are cut between users.
2. *What later stages hold of each user.* `train`, `evaluate` and `push` hold 20 bytes a user (and map the items from
   disk): {offsets[0]:,.0f} GB at 10^9 events, {offsets[1]:,.0f} GB at 10^10.
3. *The item table on one GPU.* {LARGE_CATALOGUE:,} items of {WIDTH} numbers are {items:.2f} GB, Adam's two moments
   {2 * items:.2f} GB more, and with the mean of the weights and the best so far {COPIES * items:.1f} GB. That fits on
   a GPU of 24 GB; ten times as many items need ten times as much.
4. *One process that publishes.* A push is one process, and the online store holds about {ONLINE_BYTES:,} bytes a user:
   {online[0]:,.0f} GB at 10^9 events, {online[1]:,.0f} GB at 10^10. Beyond 10^8 users a Redis cluster has to be filled
   by many.
5. *The parts of recommend-all.* With {RECOMMENDED_USERS:,} users a part there are {parts[0]:,} and {parts[1]:,}. Each
   part reads the ids of all users to find its own, so parts should grow with the log.
6. *Histories for training by time.* `history_rows.parquet` has a row an event, so it grows with the log times the mean
   history."""
