"""Sums over the users of both arms of a test, from its first whole day up to each later day."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.monitoring.attributed import DAY_SQL
from elcrec.monitoring.daily import RATIOS, Ratio, ratio_of
from elcrec.serving.arms import Arm

ARMS: tuple[Arm, Arm] = ("champion", "challenger")
_MOMENTS = ("n", "y", "x", "yy", "xy", "xx")

# A bundle may have served before the test, and if an arm's bundle cannot be served, the other one answers.
_BEGAN = f"""
SELECT max(day) AS day, count(*) AS arms FROM (
    SELECT attributed.arm, min({DAY_SQL}) AS day FROM attributed
    JOIN own ON own.arm = attributed.arm AND own.digest = attributed.digest GROUP BY attributed.arm
)
"""
_TESTED = f"""
SELECT user_key AS who, attributed.arm, answer_id, events, {DAY_SQL} AS day, next_time, is_next FROM attributed
WHERE arm IS NOT NULL AND user_key IS NOT NULL AND digest IN (SELECT digest FROM own)
    AND {DAY_SQL} BETWEEN {{first}} AND {{last}}
"""
_MEMBERS = "SELECT who, min(arm) AS arm, max(arm) AS other, min(day) AS day FROM tested GROUP BY who"
_SUMS = """
SELECT who, arm, day, CAST(count(*) AS DOUBLE) AS answers,
    {sums} FROM (
    SELECT tested.who, tested.arm, tested.day, answer_id, count(*) AS impressions,
        count(*) FILTER (events > 0) AS clicks, CAST(max(events) > 0 AS BIGINT) AS converted,
        CAST(count(next_time) > 0 AS BIGINT) AS followed, count(*) FILTER (is_next) AS hits
    FROM tested JOIN members ON members.who = tested.who WHERE members.arm = members.other
    GROUP BY tested.who, tested.arm, tested.day, answer_id
) GROUP BY who, arm, day
""".format(
    sums=", ".join(
        f"CAST(sum({name}) AS DOUBLE) AS {name}" for name in ("impressions", "clicks", "converted", "followed", "hits")
    )
)
# The contribution of a user's day to sums of squares over users: the square of the user's sum after it minus before it.
_ADDED = """
SELECT arm, day, CAST(count(*) FILTER (after_x > 0 AND after_x = x) AS DOUBLE) AS n, sum(y) AS y, sum(x) AS x,
    sum(after_y * after_y - (after_y - y) * (after_y - y)) AS yy,
    sum(after_x * after_y - (after_x - x) * (after_y - y)) AS xy,
    sum(after_x * after_x - (after_x - x) * (after_x - x)) AS xx
FROM (
    SELECT arm, day, {y} AS y, {x} AS x, sum({y}) OVER (PARTITION BY who ORDER BY day) AS after_y,
        sum({x}) OVER (PARTITION BY who ORDER BY day) AS after_x
    FROM sums
) WHERE x > 0 GROUP BY arm, day
"""
_USERS = "SELECT arm, day, count(*) AS users FROM members WHERE arm = other GROUP BY arm, day"
_CROSSED = "SELECT count(*) AS users FROM members WHERE arm <> other"


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a test after a day.

    Attributes:
        day: number of the day since 1970, UTC.
        users: distinct users of each arm so far.
        rates: rates of each arm by name (`daily.RATIOS`), over all days so far; absent without a trial.
    """

    day: int
    users: dict[Arm, int]
    rates: dict[str, dict[Arm, Ratio]]


def began(session: Session, digests: Mapping[Arm, str]) -> int | None:
    """Return the first day on which both bundles were shown in their arms, `None` if there is none yet.

    Args:
        session: the session with the table `attributed`.
        digests: digest of the bundle of each arm.
    """
    session.enter("own", pa.table({"arm": list(digests), "digest": list(digests.values())}))
    (row,) = session.fetch(_BEGAN).to_pylist()
    return row["day"] if row["arms"] == len(ARMS) else None


def daily_sums(session: Session, first: int, last: int, metrics: Sequence[str]) -> tuple[list[Day], int]:
    """Return a test day by day, and the number of users found in both arms, who count for neither.

    Args:
        session: the session in which `began` was called.
        first: the first day that counts.
        last: the last day that counts.
        metrics: names of rates.
    """
    session.table("tested", _TESTED.format(first=first, last=last))
    session.table("members", _MEMBERS)
    session.table("sums", _SUMS)
    users = _running(session.fetch(_USERS).to_pylist(), ("users",), first, last)
    moments = {
        name: _running(session.fetch(_ADDED.format(y=y, x=x)).to_pylist(), _MOMENTS, first, last)
        for name, (y, x) in RATIOS.items()
        if name in metrics
    }
    (crossed,) = session.fetch(_CROSSED)["users"].to_pylist()
    days = [
        Day(
            day=day,
            users={arm: int(users[arm][day]["users"]) for arm in ARMS},
            rates={name: _rates(of, day) for name, of in moments.items()},
        )
        for day in range(first, last + 1)
    ]
    return days, crossed


def _rates(moments: Mapping[Arm, Mapping[int, Mapping[str, float]]], day: int) -> dict[Arm, Ratio]:
    return {arm: ratio_of(of[day]) for arm, of in moments.items() if of[day]["x"] > 0}


def _running(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], first: int, last: int
) -> dict[Arm, dict[int, dict[str, float]]]:
    """Return cumulative sums of the rows of each arm, from the first day to each day."""
    added = {(row["arm"], row["day"]): row for row in rows}
    found: dict[Arm, dict[int, dict[str, float]]] = defaultdict(dict)
    for arm in ARMS:
        total = dict.fromkeys(names, 0.0)
        for day in range(first, last + 1):
            row = added.get((arm, day), {})
            total = {name: total[name] + row.get(name, 0.0) for name in names}
            found[arm][day] = total
    return found
