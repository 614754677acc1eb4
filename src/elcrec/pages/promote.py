"""A test of two versions as a page: the content of promote.json in charts and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elcrec.config import PromoteConfig
from elcrec.monitoring.promotion import NAMES, Decision, Look
from elcrec.pages.drawing import COLORS, INK, figure, label_some
from elcrec.pages.render import render

_TONES = {"promote": "good", "drop": "bad", "refused": "bad", "collect": "main"}
_TITLES = {
    "promote": "The challenger becomes champion",
    "drop": "The challenger is dropped",
    "refused": "No decision: the split of users is invalid",
    "collect": "Keep collecting",
}
_MOST_TICKS = 10


def write_promotion_page(path: Path, config: PromoteConfig, decision: Decision, document: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: the file to write.
        config: the section `promote`.
        decision: a decision with at least one look.
        document: the content of promote.json.
    """
    names = list(dict.fromkeys([config.metric, *config.guards]))
    dates = [look["date"] for look in document["looks"]]
    page = {
        "document": document,
        "title": _TITLES[decision.outcome],
        "tone": _TONES[decision.outcome],
        "last": decision.looks[-1],
        "main": decision.looks[-1].estimates.get(config.metric),
        "rows": list(zip(dates, decision.looks, strict=True))[::-1],
        "names": {name: NAMES[name] for name in names},
        "guards": config.guards,
        "metric": config.metric,
        "charts": [_sequence(name, dates, decision.looks, config.guards.get(name)) for name in names],
    }
    render("promote.html.jinja", path, page)


def _sequence(name: str, dates: Sequence[str], looks: Sequence[Look], margin: float | None) -> str:
    """The lift by day within its confidence sequence; days before the minimum sample are pale."""
    points = [(place, look, look.estimates[name]) for place, look in enumerate(looks) if name in look.estimates]
    with figure(10.4, 3.2) as ((axis,), finish):
        x = np.array([place for place, _, _ in points])
        lift, low, high = (np.array([getattr(each, end) for _, _, each in points]) for end in ("lift", "low", "high"))
        counts = np.array([look.counts for _, look, _ in points], bool)
        for of, alpha in ((counts, 0.22), (~counts, 0.08)):
            axis.bar(x[of], (high - low)[of], bottom=low[of], width=0.7, color=COLORS["model"], alpha=alpha)
        axis.plot(x, lift, color=COLORS["model"], marker="o", markersize=3.5, linewidth=1.4)
        axis.axhline(0, color=INK, linewidth=1)
        if margin is not None:
            axis.axhline(-margin, color="#b42318", linewidth=1, linestyle="--")
        label_some(axis, [date[5:] for date in dates], most=_MOST_TICKS)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        reach = _reach(low, high, lift, counts)
        axis.set_ylim(-reach, reach)
        title = f"Lift of the {NAMES[name]} by day, all days so far"
        axis.set_title(title)
        return finish(title)


def _reach(low: Any, high: Any, lift: Any, counts: Any) -> float:
    """Return the range of the axis, which cuts off the wide intervals of the first days to show the later ones."""
    shown = counts if counts.any() else np.ones(len(counts), bool)
    ends = [np.abs(each[shown]) for each in (low, high, lift)]
    finite = np.concatenate([each[np.isfinite(each)] for each in ends] or [np.zeros(0)])
    return float(1.3 * finite.max()) if len(finite) else 1.0
