"""Simulated tests of two versions: returning users with persistent habits, and the results after each day.

A user's click rate and how often they come stay theirs; days differ in traffic and mood; users arrive all the time. So
the answers to one user are far from independent, and what is known on one day is mostly known on the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elcrec.config import PromoteConfig
from elcrec.monitoring.arms import ARMS, Day
from elcrec.monitoring.daily import RATIOS, Ratio, ratio_of
from elcrec.monitoring.promotion import Decision, decide

SHOWN = 10
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test of two versions.

    Attributes:
        users: how many come in all.
        days: how many whole days it has.
        share: of the users who are the challenger's.
        lift: relative rise of every click rate under the challenger.
        arriving: share of the users who first come after the first day, evenly over the days.
    """

    __test__ = False

    seed: int
    users: int = 4000
    days: int = 28
    share: float = 0.5
    lift: float = 0.0
    arriving: float = 0.5

    def played(self) -> list[Day]:
        """Return what is known after each day."""
        rng = np.random.default_rng(self.seed)
        challenged = rng.random(self.users) < self.share
        rate = rng.beta(2, 18, self.users) * np.where(challenged, 1 + self.lift, 1)
        activity = rng.gamma(1.0, 0.3, self.users)
        first = np.where(rng.random(self.users) < self.arriving, rng.integers(0, self.days, self.users), 0)
        total, found = {name: np.zeros(self.users) for name in _NAMES}, []
        for day in range(self.days):
            weekend = 1.3 if day % 7 >= 5 else 1.0
            answers = rng.poisson(activity * weekend) * (first <= day)
            added = _of_a_day(rng, answers, rate * np.exp(rng.normal(0, 0.05)))
            total = {name: total[name] + added[name] for name in _NAMES}
            found.append(_day(day, total, challenged))
        return found


def ended(test: Test, config: PromoteConfig) -> Decision:
    """Look every day until something is decided, or the test is over."""
    days = test.played()
    for number in range(config.min_days, len(days) + 1):
        found = decide(config, days[:number], 0, share=test.share)
        if found.outcome in {"promote", "drop"}:
            break
    return found


_NAMES = ("answers", "impressions", "clicks", "converted", "followed", "hits")


def _of_a_day(rng: np.random.Generator, answers: npt.NDArray[np.int64], rate: Floats) -> dict[str, Floats]:
    """Return each user's sums of a day; a user's taste of the day makes the items of the day hang together too."""
    rate = np.clip(rate * rng.gamma(4.0, 0.25, len(rate)), 0, 1)
    clicks = rng.binomial(answers * SHOWN, rate)
    converted = np.minimum(clicks, rng.binomial(answers, 1 - (1 - rate) ** SHOWN))
    followed = rng.binomial(answers, 0.6)
    hits = rng.binomial(followed, rate)
    columns = (answers, answers * SHOWN, clicks, converted, followed, hits)
    return {name: column.astype(np.float64) for name, column in zip(_NAMES, columns, strict=True)}


def _day(day: int, total: Mapping[str, Floats], challenged: npt.NDArray[np.bool_]) -> Day:
    of = dict(zip(ARMS, (~challenged, challenged), strict=True))
    return Day(
        day=day,
        users={arm: int((total["answers"][members] > 0).sum()) for arm, members in of.items()},
        rates={
            name: {arm: _rate(total[y][members], total[x][members]) for arm, members in of.items()}
            for name, (y, x) in RATIOS.items()
            if y in total
        },
    )


def _rate(y: Floats, x: Floats) -> Ratio:
    y, x = y[x > 0], x[x > 0]
    sums = {"y": y.sum(), "x": x.sum(), "yy": (y * y).sum(), "xy": (x * y).sum(), "xx": (x * x).sum()}
    return ratio_of({"n": len(x)} | {name: float(value) for name, value in sums.items()})
