"""What a bundle showed on a day and which events followed, as ratios with the variance between users.

The answers to one user are not independent, so the sums of each user are the observations: with y and x of each of n
users, r = sum(y) / sum(x) has the variance n / (n - 1) * sum((y - r x)^2) / sum(x)^2 (the ratio estimator of cluster
sampling: Cochran 1977, Sampling Techniques, 6.3). An answer without a user's key counts as a user of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.data.history_lengths import LENGTHS
from elcrec.monitoring.attributed import DAY_SQL

RATIOS = {
    "ctr": ("clicks", "impressions"),
    "conversion": ("converted", "answers"),
    "hit_rate": ("hits", "followed"),
    "cold": ("cold", "answers"),
}
"""Ratios of sums over answers: numerator and denominator."""
DECILES = 10

Period = tuple[str, int, int]
"""Digest of a bundle, a day (since 1970, UTC), and the number of the period that contains the day."""


class Ratio(msgspec.Struct, frozen=True):
    """A ratio of sums over users.

    Attributes:
        variance: variance from the random choice of users and their behaviour.
        trials: the denominator.
    """

    value: float
    variance: float
    trials: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle in a period.

    Attributes:
        items: distinct items that were shown.
        ratios: those of RATIOS that have a trial, and `overlap`: the chance that items shown to two different users are
            the same.
        intents: share of each intent among the answers with an intent.
        deciles: click rate of the shown items by decile of their score.
        lengths: share of each group of LENGTHS among the answers with a known history; missing in earlier versions.
    """

    users: int
    answers: int
    impressions: int
    items: int
    ratios: dict[str, Ratio]
    intents: dict[str, Ratio]
    deciles: dict[str, Ratio]
    lengths: dict[str, Ratio] = {}


_BUNDLES = f"""
SELECT digest, min_by(model, time) AS model, max_by(version, time) AS version, min({DAY_SQL}) AS first
FROM attributed GROUP BY digest ORDER BY min(time), digest
"""
_DAYS = f"""
SELECT digest, {DAY_SQL} AS day, count(DISTINCT coalesce(user_key, answer_id)) AS users FROM attributed
GROUP BY ALL ORDER BY day, digest
"""
_EDGES = f"""
SELECT digest, decile, CAST(min(score) AS DOUBLE) AS edge FROM (
    SELECT first.digest, score, ntile({DECILES}) OVER (PARTITION BY first.digest ORDER BY score) AS decile
    FROM attributed JOIN first ON first.digest = attributed.digest AND first.day = {DAY_SQL}
    WHERE starts_with(policy, 'model')
) GROUP BY digest, decile ORDER BY digest, decile
"""
_SHOWN = f"""
SELECT attributed.digest, periods.period, coalesce(user_key, answer_id) AS who, answer_id, item_id, score, policy,
    intent, known, events, next_time, is_next
FROM attributed JOIN periods ON periods.digest = attributed.digest AND periods.day = {DAY_SQL}
"""
_ANSWERS = """
SELECT digest, period, who, answer_id, min(intent) AS intent, CAST(min(known) = 0 AS BIGINT) AS cold,
    {length} AS length,
    count(*) AS impressions, count(*) FILTER (events > 0) AS clicks,
    CAST(max(events) > 0 AS BIGINT) AS converted, CAST(count(next_time) > 0 AS BIGINT) AS followed,
    count(*) FILTER (is_next) AS hits
FROM shown GROUP BY digest, period, who, answer_id
""".format(
    length=" ".join(
        ["CASE", *(f"WHEN min(known) >= {least} THEN {least}" for least in reversed(LENGTHS)), "ELSE NULL END"]
    )
)
_USERS = """
SELECT digest, period, who, CAST(count(*) AS DOUBLE) AS answers, CAST(count(intent) AS DOUBLE) AS with_intent,
    CAST(count(length) AS DOUBLE) AS with_length,
    {sums} FROM answers GROUP BY digest, period, who
""".format(
    sums=", ".join(
        f"CAST(sum({name}) AS DOUBLE) AS {name}"
        for name in ("impressions", "clicks", "converted", "followed", "hits", "cold")
    )
)
_TOTALS = """
SELECT digest, period, count(*) AS users, sum(answers) AS answers, sum(impressions) AS impressions,
    count(*) FILTER (with_intent > 0) AS n_intent, sum(with_intent) AS x_intent,
    sum(with_intent * with_intent) AS xx_intent, count(*) FILTER (with_length > 0) AS n_length,
    sum(with_length) AS x_length, sum(with_length * with_length) AS xx_length
FROM users GROUP BY digest, period
"""
_MOMENTS = """
count(*) AS n, sum(y) AS y, sum(x) AS x, sum(y * y) AS yy, sum(x * y) AS xy, sum(x * x) AS xx
"""
_RATIO = "SELECT digest, period, {moments} FROM (SELECT digest, period, {y} AS y, {x} AS x FROM {table}) WHERE x > 0"
_RATIO += " GROUP BY digest, period"
_SHARES = f"""
SELECT digest, period, cell, {_MOMENTS} FROM (
    SELECT users.digest, users.period, cell, taken.y, with_{{column}} AS x FROM (
        SELECT digest, period, who, CAST({{column}} AS VARCHAR) AS cell, CAST(count(*) AS DOUBLE) AS y
        FROM answers WHERE {{column}} IS NOT NULL GROUP BY digest, period, who, {{column}}
    ) AS taken JOIN users
        ON users.digest = taken.digest AND users.period = taken.period AND users.who = taken.who
) GROUP BY digest, period, cell
"""
_BY_SCORE = f"""
SELECT digest, period, cell, {_MOMENTS} FROM (
    SELECT digest, period, who, cell, CAST(count(*) FILTER (events > 0) AS DOUBLE) AS y, CAST(count(*) AS DOUBLE) AS x
    FROM (
        SELECT shown.digest, period, who, events, CAST({{decile}} AS VARCHAR) AS cell
        FROM shown JOIN edges ON edges.digest = shown.digest WHERE starts_with(policy, 'model')
    ) GROUP BY digest, period, who, cell
) GROUP BY digest, period, cell
""".format(decile=" + ".join(["1", *(f"CAST(score >= e{place} AS INT)" for place in range(2, DECILES + 1))]))
_TAKEN = """
SELECT digest, period, who, item_id, CAST(count(*) AS DOUBLE) AS times FROM shown GROUP BY digest, period, who, item_id
"""
_POPULAR = """
SELECT digest, period, item_id, sum(times) AS times, sum(times * times) AS own FROM taken
GROUP BY digest, period, item_id
"""
_ITEMS = """
SELECT digest, period, count(*) AS items, sum(times * times - own) AS pairs FROM popular GROUP BY digest, period
"""
_MEETINGS = """
SELECT taken.digest, taken.period, who, sum(taken.times * popular.times) AS met, sum(taken.times) AS impressions
FROM taken JOIN popular ON popular.digest = taken.digest AND popular.period = taken.period
    AND popular.item_id = taken.item_id
GROUP BY taken.digest, taken.period, who
"""


def bundles(session: Session) -> list[dict[str, Any]]:
    """Return `digest`, `model`, `version` and `first` day of each bundle of the table `attributed`, oldest first."""
    return list(session.fetch(_BUNDLES).to_pylist())


def days(session: Session) -> list[tuple[str, int, int]]:
    """Return the bundles and days of the table `attributed`, by day, with their numbers of users."""
    return [(row["digest"], row["day"], row["users"]) for row in session.fetch(_DAYS).to_pylist()]


def score_edges(session: Session, first: Mapping[str, int]) -> dict[str, list[float]]:
    """Return the lower edges of the 2nd to the 10th decile of the scores of a bundle's day."""
    if not first:
        return {}
    session.enter("first", pa.table({"digest": list(first), "day": pa.array(first.values(), pa.int64())}))
    edges: dict[str, list[float]] = {digest: [] for digest in first}
    for row in session.fetch(_EDGES).to_pylist():
        if row["decile"] > 1:
            edges[row["digest"]].append(row["edge"])
    return edges


def measure(
    session: Session, periods: Sequence[Period], edges: Mapping[str, Sequence[float]]
) -> dict[tuple[str, int], Measured]:
    """Measure bundles in periods of the table `attributed`, by digest and number of the period.

    Args:
        session: the session with the table (`attribution.ATTRIBUTED_SCHEMA`).
        periods: the days of each period.
        edges: edges from `score_edges`; a bundle needs all of them to have deciles.
    """
    if not periods:
        return {}
    _enter(session, periods, edges)
    for name, sql in (("shown", _SHOWN), ("answers", _ANSWERS), ("users", _USERS), ("taken", _TAKEN)):
        session.table(name, sql)
    session.table("popular", _POPULAR)
    session.table("meetings", _MEETINGS)
    ratios: dict[tuple[str, int], dict[str, Ratio]] = defaultdict(dict)
    for name, (y, x) in RATIOS.items():
        for key, row in _rows(session, _RATIO.format(moments=_MOMENTS, y=y, x=x, table="users")):
            ratios[key][name] = ratio_of(row)
    totals, items = dict(_rows(session, _TOTALS)), dict(_rows(session, _ITEMS))
    for key, row in _rows(session, _RATIO.format(moments=_MOMENTS, y="met", x="impressions", table="meetings")):
        ratios[key]["overlap"] = _overlap(row, items[key]["pairs"])
    intents, lengths = (_shares(session, totals, column) for column in ("intent", "length"))
    deciles = _cells(_rows(session, _BY_SCORE))
    return {
        key: Measured(
            **{name: int(row[name]) for name in ("users", "answers", "impressions")},
            items=items[key]["items"],
            ratios=ratios[key],
            intents=intents.get(key, {}),
            deciles=deciles.get(key, {}),
            lengths=lengths.get(key, {}),
        )
        for key, row in totals.items()
    }


def _enter(session: Session, periods: Sequence[Period], edges: Mapping[str, Sequence[float]]) -> None:
    digests, on, numbers = zip(*periods, strict=True)
    table = {"digest": digests, "day": pa.array(on, pa.int64()), "period": pa.array(numbers, pa.int64())}
    session.enter("periods", pa.table(table))
    whole = {digest: found for digest, found in edges.items() if len(found) == DECILES - 1}
    columns: dict[str, Any] = {"digest": pa.array(list(whole), pa.string())}
    for place in range(2, DECILES + 1):
        columns[f"e{place}"] = pa.array([found[place - 2] for found in whole.values()], pa.float64())
    session.enter("edges", pa.table(columns))


def _rows(session: Session, sql: str) -> Iterable[tuple[tuple[str, int], dict[str, Any]]]:
    return (((row["digest"], row["period"]), row) for row in session.fetch(sql).to_pylist())


def ratio_of(row: Mapping[str, Any]) -> Ratio:
    """Return the ratio of the sums `y` and `x` over `n` users, given also the sums of their products."""
    value = row["y"] / row["x"]
    spread = max(0.0, row["yy"] - 2 * value * row["xy"] + value * value * row["xx"])
    return Ratio(value, row["n"] / max(row["n"] - 1, 1) * spread / row["x"] ** 2, row["x"])


def _overlap(row: Mapping[str, Any], same: float) -> Ratio:
    """Return the share of pairs of items shown to different users in which both items are the same.

    Each user appears in both places of a pair, so the error is twice that of one place (Hoeffding 1948).
    """
    pairs = row["x"] ** 2 - row["xx"]
    one_place = ratio_of({**row, "y": row["y"] / row["x"], "yy": row["yy"] / row["x"] ** 2, "xy": row["xy"] / row["x"]})
    return Ratio(same / pairs if pairs else 0.0, 4 * one_place.variance, row["x"])


def _shares(
    session: Session, totals: Mapping[tuple[str, int], Mapping[str, Any]], column: str
) -> dict[tuple[str, int], dict[str, Ratio]]:
    """Return the share of each value of a column among answers that have a value, over all users."""
    rows = _rows(session, _SHARES.format(column=column))
    whole = {key: {name: row[f"{name}_{column}"] for name in ("n", "x", "xx")} for key, row in totals.items()}
    return _cells((key, {**row, **whole[key]}) for key, row in rows)


def _cells(rows: Iterable[tuple[tuple[str, int], dict[str, Any]]]) -> dict[tuple[str, int], dict[str, Ratio]]:
    """Return the ratio of each cell, ordered by number."""
    found: dict[tuple[str, int], dict[str, Ratio]] = defaultdict(dict)
    for key, row in rows:
        found[key][row["cell"]] = ratio_of(row)
    return {key: dict(sorted(cells.items(), key=lambda cell: int(cell[0]))) for key, cells in found.items()}
