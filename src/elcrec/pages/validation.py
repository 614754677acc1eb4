"""The validation report as one self-contained HTML page; it works without JavaScript."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from elcrec.data.profile import LENGTH_EDGES, Figures
from elcrec.data.quality import Assessment
from elcrec.data.survey import Survey
from elcrec.data.times import DAY
from elcrec.pages.render import render

_PERIODS = 40


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a chart; `height` is relative to the highest bar, from 0 to 1."""

    label: str
    count: int
    height: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A bar chart: its title, its axis and its bars."""

    title: str
    axis: str
    bars: list[Bar]


def write_validation_page(path: Path, report: Mapping[str, Any], assessment: Assessment, *, created: datetime) -> None:
    """Write the page for a report (the content of `validation.json`).

    Raises:
        UserError: jinja2 is not installed.
    """
    page = {
        "report": report,
        "charts": charts(assessment.survey),
        "faults": assessment.survey.sorted.faults,
        "created": created,
    }
    render("validation.html.jinja", path, page)


def charts(survey: Survey) -> list[Chart]:
    """Return the charts for which the log has data."""
    figures = survey.figures
    if not figures.users:
        return []
    lengths = np.asarray(survey.profile["length_counts"])
    drawn = [
        Chart(
            title="Users by history length",
            axis="interactions of a user",
            bars=_bars(_length_labels(), lengths),
        ),
        _popularity_chart(figures.counts),
    ]
    return [*drawn, _period_chart(figures)] if survey.time == "real" else drawn


def _length_labels() -> list[str]:
    ends = [edge - 1 for edge in LENGTH_EDGES[1:]]
    closed = [f"{first}" if first == end else f"{first}-{end}" for first, end in zip(LENGTH_EDGES, ends, strict=False)]
    return [*closed, f"{LENGTH_EDGES[-1]}+"]


def _popularity_chart(counts: pa.Table) -> Chart:
    powers = np.floor(np.log2(np.asarray(counts["events"]))).astype(int)
    classes = np.bincount(powers, np.asarray(counts["items"])).astype(np.int64)
    labels = [
        f"{2**power}" if power == 0 else f"{2**power:,}-{2 ** (power + 1) - 1:,}" for power in range(len(classes))
    ]
    return Chart(title="Items by popularity", axis="interactions of an item", bars=_bars(labels, classes))


def _period_chart(figures: Figures) -> Chart:
    first, last = figures.first or 0, figures.last or 0
    days = max(1, -(-(last - first + 1) // (_PERIODS * DAY)))
    found, events = (np.asarray(figures.days[name]) for name in ("day", "events"))
    periods = np.bincount((found // DAY - first // DAY) // days, events).astype(np.int64)
    labels = [str(np.datetime64(first // DAY + days * period, "D")) for period in range(len(periods))]
    title = "Events per day" if days == 1 else f"Events per {days} days"
    return Chart(title=title, axis="first day of the period, UTC", bars=_bars(labels, periods))


def _bars(labels: list[str], counts: np.ndarray[Any, Any]) -> list[Bar]:
    highest = max(1, int(counts.max()))
    pairs = zip(labels, counts.tolist(), strict=True)
    return [Bar(label=label, count=count, height=count / highest) for label, count in pairs]
