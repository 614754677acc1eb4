"""`python -m benchmarks.counterfactual`: how often the interval of a counterfactual estimate covers the truth.

Every seed is a separate world (tests/support/logged_worlds.py), in which the true reward of each policy is known.
"""

import argparse
import sys
from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.config import CounterfactualConfig
from elcrec.evaluation.bootstrap import Estimate
from elcrec.evaluation.places import Estimates, estimate
from tests.support.logged_worlds import World

NAMES = ("logged", "ips", "snips", "doubly_robust", "difference")


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate the worlds; write the section; return the exit status."""
    return launch("benchmarks.counterfactual", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    confidence = CounterfactualConfig().confidence
    worlds = []
    for seed in range(options.seeds):
        world = World(seed)
        places = world.log(options.users)
        found = estimate(places, confidence=confidence)
        worlds.append(_compared(found, *world.truth) | {"shown": len(places.clicked), "answers": len(places.user)})
        covered = {name: sum(one[name]["covers"] for one in worlds) for name in NAMES}
        say(f"{seed + 1} worlds: covered {covered}")
    section = {
        "seeds": options.seeds,
        "users": options.users,
        "confidence": confidence,
        **{name: mean(one[name] for one in worlds) for name in ("shown", "answers", "effective", "reached", "worth")},
        "estimates": {name: _summary([one[name] for one in worlds]) for name in NAMES},
        "facts": describe(bare_job(), command)[0],
    }
    record(options.out, "counterfactual", section)


def _compared(found: Estimates, champion: float, challenger: float) -> dict[str, Any]:
    truths = {"logged": champion, "difference": challenger - champion}
    rows = {name: _row(getattr(found, name), truths.get(name, challenger)) for name in NAMES}
    return rows | {"effective": found.effective, "reached": found.reached, "worth": challenger}


def _row(found: Estimate, truth: float) -> dict[str, float]:
    return {
        "covers": found.low <= truth <= found.high,
        "error": found.mean - truth,
        "width": found.high - found.low,
    }


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        "covered": sum(row["covers"] for row in rows),
        "bias": mean(row["error"] for row in rows),
        "width": mean(row["width"] for row in rows),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counterfactual", description=__doc__)
    parser.add_argument("--seeds", type=positive, default=200, help="worlds (default 200)")
    parser.add_argument("--users", type=positive, default=600, help="users with shown items (default 600)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
