"""`python -m benchmarks.monitor`: the monitor's rate of false alarms, and its time to find a planted drift.

Every seed is a separate world (tests/support/shown_days.py). It is simulated for the reference days and 30 more without
changes, and again with each drift from some of these days on.
"""

import argparse
import copy
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.adapters.engine import open_engine
from elcrec.config import EngineConfig, MonitorConfig
from elcrec.data.engine import Engine
from elcrec.monitoring.daily import Measured, measure, score_edges
from elcrec.monitoring.thresholds import HORIZON
from elcrec.monitoring.verdict import Day, Judgement, Reference, judge
from tests.support.shown_days import DIGEST, FIRST, Drift, World

DRIFTS = {
    "click rates fall by 20 %": Drift(clicks=0.8),
    "10 % of the users turn to one intent": Drift(moved=0.1),
    "4 % more of the users are new, every day": Drift(cold=0.04),
    "known histories are 30 % shorter": Drift(lengths=0.7),
}
_WITHIN = 3
"""Number of days within which a drift must be found."""
_BEFORE = 5
"""Number of unchanged days that are judged before a drift begins."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate the worlds; write the section; return the exit status."""
    return launch("benchmarks.monitor", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    config = MonitorConfig(stale_days=None)
    engine = open_engine(EngineConfig(memory_mb=1024, threads=1))
    played = []
    for seed in range(options.seeds):
        played.append(_play(World(seed=seed, users=options.users), config, engine))
        alarms = sum(bool(one["alarms"]) for one in played)
        found = {name: sum(one["found"][name] for one in played) for name in DRIFTS}
        say(f"{seed + 1} worlds: {alarms} with a false alarm; found {found}")
    section = {
        "seeds": options.seeds,
        "users": options.users,
        "stated": config.false_alarms,
        "days": {"reference": config.reference_days, "judged": HORIZON, "within": _WITHIN},
        "answers": sum(one["answers"] for one in played) / len(played),
        "false": sum(bool(one["alarms"]) for one in played),
        "by_check": dict(Counter(name for one in played for name in one["alarms"])),
        "found": {name: sum(one["found"][name] for one in played) for name in DRIFTS},
        "facts": describe(bare_job(), command)[0],
    }
    record(options.out, "monitor", section)


def _play(world: World, config: MonitorConfig, engine: Engine) -> dict[str, Any]:
    """Return the checks with an alarm in the unchanged days, and which drifts were found in time."""
    first = config.reference_days
    quiet = list(world.days(first + _BEFORE))
    drifted = {name: list(copy.deepcopy(world).days(_WITHIN, drift)) for name, drift in DRIFTS.items()}
    quiet += world.days(HORIZON - _BEFORE)
    edges, days, pooled = _days(engine, quiet, first)
    reference = Reference(days=tuple(days[:first]), pooled=pooled)
    judged = judge(config, days[first:], reference)
    found = {}
    for name, tables in drifted.items():
        more = [*days[first : first + _BEFORE], *_drifted(engine, tables, edges)]
        found[name] = any(one.verdict != "fine" for one in judge(config, more, reference)[_BEFORE:])
    answers = sum(day.measured.answers for day in days) / len(days)
    return {"alarms": _alarms(judged), "found": found, "answers": answers}


def _alarms(judged: Iterable[Judgement]) -> list[str]:
    return sorted({name for one in judged for name in one.alarms})


def _days(engine: Engine, tables: Sequence[pa.Table], first: int) -> tuple[list[float], list[Day], Measured]:
    with tempfile.TemporaryDirectory() as folder, engine.session(Path(folder) / "out") as session:
        session.enter("attributed", pa.concat_tables(tables))
        edges = score_edges(session, {DIGEST: FIRST})
        numbers = range(FIRST, FIRST + len(tables))
        measured = measure(session, [(DIGEST, day, day) for day in numbers], edges)
        pooled = measure(session, [(DIGEST, day, -1) for day in numbers[:first]], edges)
        return edges[DIGEST], [_day(day, measured[DIGEST, day]) for day in numbers], pooled[DIGEST, -1]


def _drifted(engine: Engine, tables: Sequence[pa.Table], edges: Sequence[float]) -> list[Day]:
    start = FIRST + MonitorConfig().reference_days + _BEFORE
    with tempfile.TemporaryDirectory() as folder, engine.session(Path(folder) / "out") as session:
        session.enter("attributed", pa.concat_tables(tables))
        numbers = range(start, start + len(tables))
        measured = measure(session, [(DIGEST, day, day) for day in numbers], {DIGEST: edges})
        return [_day(day, measured[DIGEST, day]) for day in numbers]


def _day(number: int, measured: Measured) -> Day:
    return Day(date=str(number), settled=True, measured=measured)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument("--seeds", type=positive, default=200, help="worlds (default 200)")
    parser.add_argument("--users", type=positive, default=8000, help="users of a world (default 8000)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
