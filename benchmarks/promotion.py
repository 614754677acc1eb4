"""`python -m benchmarks.promotion`: how often a test finds a difference of equal versions, and how soon a lift.

Every seed is a separate test (tests/support/tests_of_two.py), evaluated after each of its days.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.config import PromoteConfig
from tests.support.tests_of_two import Test, ended

_LIFTS = (0.05, 0.1, 0.2)
_MORE = 5
"""Factor on the number of users for the large tests."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate the tests; write the section; return the exit status."""
    return launch("benchmarks.promotion", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    config = PromoteConfig()
    few, many = options.users, _MORE * options.users
    scenes = [(0.0, few, options.tests), (0.0, many, max(1, options.tests // 10))]
    scenes += [(lift, few, max(1, options.tests // 10)) for lift in _LIFTS]
    scenes += [(lift, many, max(1, options.tests // 20)) for lift in _LIFTS]
    played = [_played(config, lift, users, tests, options.days) for lift, users, tests in scenes]
    section = {
        "stated": config.false_alarms,
        "days": options.days,
        "played": played,
        "facts": describe(bare_job(), command)[0],
    }
    record(options.out, "promotion", section)


def _played(config: PromoteConfig, lift: float, users: int, tests: int, days: int) -> dict[str, Any]:
    """Return the outcomes of a number of tests with a lift."""
    outcomes: Counter[str] = Counter()
    decided: list[int] = []
    for seed in range(tests):
        found = ended(Test(seed=seed, users=users, days=days, lift=lift), config)
        outcomes[found.outcome] += 1
        if found.outcome in {"promote", "drop"}:
            decided.append(len(found.looks))
    say(f"lift {lift:+.0%}, {users:,} users: {dict(outcomes)} of {tests}")
    day = median(decided) if decided else None
    return {"lift": lift, "users": users, "tests": tests, "outcomes": dict(outcomes), "median_day": day}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotion", description=__doc__)
    parser.add_argument("--tests", type=positive, default=1000, help="tests of equal versions (default 1000)")
    parser.add_argument(
        "--users",
        type=positive,
        default=4000,
        help="users of a test; large tests have five times as many (default 4000)",
    )
    parser.add_argument("--days", type=positive, default=28, help="days of a test (default 28)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
