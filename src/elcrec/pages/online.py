"""Online metrics as a page: the table in charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elcrec.pages.drawing import COLORS, WHISKERS, figure, label_some
from elcrec.pages.render import render

_TITLES = {
    "day": "By day",
    "bundle": "By bundle",
    "policy": "By policy",
    "intent": "By intent",
    "position": "By position",
}
_DRAWN = ("day", "position")
_MOST_TICKS = 12
Rows = Sequence[Mapping[str, Any]]


def write_online_page(path: Path, rows: Rows, counts: Mapping[str, int]) -> None:
    """Write the page.

    Args:
        path: the file to write.
        rows: result of `online_metrics`.
        counts: result of `attribution.counts`.
    """
    by = {name: [row for row in rows if row["by"] == name] for name in _TITLES}
    (total,) = (row for row in rows if row["by"] == "all")
    page = {
        "total": total,
        "counts": counts,
        "tables": [(name, title, by[name]) for name, title in _TITLES.items()],
        "charts": {name: _shares(by[name], _TITLES[name]) for name in _DRAWN},
        "takeaways": _takeaways(total, counts),
    }
    render("online.html.jinja", path, page)


def _takeaways(total: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    """Return the main findings, one sentence each."""
    interval = f"95 % interval {total['ctr_low']:.2%} to {total['ctr_high']:.2%}"
    said = [f"{total['ctr']:.2%} of the shown items had an event afterwards ({interval})."]
    if total["followed"]:
        said.append(f"{total['hit_rate']:.1%} of the next events were of an item that was shown just before.")
    if counts["unattributed"]:
        share = counts["unattributed"] / counts["events"]
        said.append(f"{share:.1%} of the events follow from no answer: the user had not been shown the item in time.")
    if counts["repeated_answers"] or counts["repeated_events"]:
        repeats = f"{counts['repeated_answers']:,} answers and {counts['repeated_events']:,} events"
        said.append(f"{repeats} occurred more than once and are counted once.")
    return said


def _shares(rows: Rows, title: str) -> str:
    """CTR of each group with its interval."""
    with figure(5.2, 3.2) as ((axis,), finish):
        x, ctr = np.arange(len(rows)), np.array([row["ctr"] for row in rows])
        error = np.array([ctr - [row["ctr_low"] for row in rows], [row["ctr_high"] for row in rows] - ctr])
        style = {"color": COLORS["model"], **WHISKERS}
        axis.errorbar(x, ctr, yerr=error.clip(0), fmt="o", markersize=4, **style)
        label_some(axis, [row["group"] for row in rows], most=_MOST_TICKS)
        axis.tick_params(axis="x", rotation=0 if str(rows[0]["group"]).isdecimal() else 30)
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        axis.set_title(f"Share of shown items with an event: {title.lower()}")
        return finish(f"Click-through rate {title.lower()}")
