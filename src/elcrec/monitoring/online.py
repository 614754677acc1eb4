"""Online metrics: how users responded to shown items, overall and by day, bundle, policy, intent and position."""

from typing import Any

import pyarrow as pa

from elcrec.data.engine import Session
from elcrec.monitoring.intervals import wilson

GROUPS = {
    "all": "''",
    "day": "strftime(time, '%Y-%m-%d')",
    "bundle": "concat(model, ' ', version, ' ', substring(digest, 1, 8))",
    "policy": "policy",
    "intent": "coalesce(CAST(intent AS VARCHAR), 'none')",
    "position": "CAST(position AS VARCHAR)",
}
"""The groupings of rows, and the SQL of the group's name."""

SHARES = {"ctr": ("clicks", "impressions"), "conversion": ("converted", "answers"), "hit_rate": ("hits", "followed")}
"""Shares with a Wilson interval, as counts of successes and of trials."""

_COUNTS = ("answers", "impressions", "clicks", "converted", "followed", "hits")
_MEANS = ("ndcg", "coverage", "popularity", "diversity", "novelty", "cold")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("by", "group")),
        *((name, pa.int64()) for name in _COUNTS),
        *((f"{name}{end}", pa.float64()) for name in SHARES for end in ("", "_low", "_high")),
        *((name, pa.float64()) for name in _MEANS),
    ]
)

# An item's popularity is its number of events; every item that was shown or has an event counts.
_ITEMS = """
SELECT item_id, percent_rank() OVER (ORDER BY events) AS popularity,
    -log2((events + 1) / sum(events + 1) OVER ()) AS novelty
FROM (
    SELECT item_id, CAST(sum(met) AS DOUBLE) AS events
    FROM (SELECT item_id, 0 AS met FROM shown UNION ALL SELECT item_id, 1 AS met FROM events) GROUP BY item_id
)
"""
_IMPRESSIONS = """
SELECT attributed.*, items.popularity, items.novelty, 1 / log2(position + 1) AS gain
FROM attributed JOIN items ON items.item_id = attributed.item_id
"""
_GROUPED = """
SELECT '{by}' AS "by", {name} AS "group", count(DISTINCT answer) AS answers, count(*) AS impressions,
    count(*) FILTER (events > 0) AS clicks, count(DISTINCT answer) FILTER (events > 0) AS converted,
    count(DISTINCT answer) FILTER (next_time IS NOT NULL) AS followed, count(*) FILTER (is_next) AS hits,
    coalesce(sum(gain) FILTER (is_next), 0) AS gains, count(DISTINCT item_id) AS items,
    avg(popularity) AS popularity, avg(novelty) AS novelty, count(DISTINCT answer) FILTER (known = 0) AS cold
FROM impressions GROUP BY ALL HAVING count(*) > 0
"""
_SPREAD = """
SELECT "group", exp(ln(sum(times)) - sum(times * ln(times)) / sum(times)) AS diversity
FROM (SELECT {name} AS "group", item_id, count(*) AS times FROM impressions GROUP BY ALL) GROUP BY "group"
"""
_ALL_ITEMS = "SELECT count(*) AS items FROM items"


def online_metrics(session: Session) -> pa.Table:
    """Measure the table `attributed` of a session (see `attribution.attribute`), with one row per group.

    Columns: `by`, `group`; counts: answers with at least one item, impressions (shown items), clicks (impressions with
        an event), converted (answers with an event), followed (answers after which the user's next event is known),
        hits (answers that showed the item of that event); the shares `ctr`, `conversion` and `hit_rate`, each with
        `_low` and `_high` (Wilson, 95 %, as if
    impressions were independent); `ndcg` of the next event among the shown items; `coverage`, share of all known items
    that were shown; `popularity`, mean percentile of the shown items by their events (popularity bias); `diversity`,
    the number of equally often shown items that would be as diverse (exp of the entropy); `novelty`, mean
    self-information in bits; `cold`, share of answers to users without a known history.
    """
    session.table("items", _ITEMS)
    session.table("impressions", _IMPRESSIONS)
    (known,) = session.fetch(_ALL_ITEMS)["items"].to_pylist()
    rows = [row for by, name in GROUPS.items() for row in _of(session, by, name, known)]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _of(session: Session, by: str, name: str, known: int) -> list[dict[str, Any]]:
    grouped = session.fetch(_GROUPED.format(by=by, name=name)).to_pylist()
    spread = session.fetch(_SPREAD.format(name=name)).to_pylist()
    diversity = {row["group"]: row["diversity"] for row in spread}
    return [_measured(row, diversity[row["group"]], known) for row in sorted(grouped, key=_place)]


def _place(row: dict[str, Any]) -> tuple[int, str]:
    """Return a sort key that puts numbers in numeric order, and text after them."""
    text = str(row["group"])
    return (int(text) if text.isdecimal() else 1 << 62, text)


def _measured(row: dict[str, Any], diversity: float, known: int) -> dict[str, Any]:
    measured = {name: row[name] for name in ("by", "group", *_COUNTS)}
    for share, (successes, trials) in SHARES.items():
        low, high = wilson(row[successes], row[trials])
        value = row[successes] / row[trials] if row[trials] else None
        measured |= {share: value, f"{share}_low": low, f"{share}_high": high}
    return measured | {
        "ndcg": row["gains"] / row["followed"] if row["followed"] else None,
        "coverage": row["items"] / known,
        "popularity": row["popularity"],
        "diversity": diversity,
        "novelty": row["novelty"],
        "cold": row["cold"] / row["answers"],
    }
