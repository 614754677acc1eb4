"""The validation report as one self-contained HTML page; it works without JavaScript."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from elcrec.data.profile import LENGTH_EDGES, event_counts
from elcrec.data.quality import Assessment
from elcrec.errors import UserError

EXAMPLES = 5
"""Rows shown for each reason of quarantine."""

_PERIODS = 40
_LONGEST_TEXT = 60
_DAY = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a chart; `height` is relative to the highest, from 0 to 1."""

    label: str
    count: int
    height: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A bar chart: what is counted, and along what."""

    title: str
    axis: str
    bars: list[Bar]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why rows went to quarantine, how many, and some of them."""

    reason: str
    count: int
    examples: list[dict[str, Any]]


def render_page(report: Mapping[str, Any], assessment: Assessment, *, created: datetime) -> str:
    """Return the page for a report (the content of `validation.json`).

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - an optional dependency that only the page needs
    except ImportError as error:
        raise UserError("the report needs jinja2", fix="install it with `pip install elcrec[validate]`") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("elcrec.data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("validation.html").render(
        report=report,
        charts=charts(assessment),
        faults=faults(assessment.rows.quarantine),
        created=f"{created:%Y-%m-%d %H:%M} UTC",
    )


def faults(quarantine: pa.Table) -> list[Fault]:
    """Return the reasons for quarantine with examples, the most frequent first."""
    found = []
    for reason, count in zip(*event_counts(quarantine["reason"]).to_pydict().values(), strict=True):
        rows = quarantine.filter(pc.equal(quarantine["reason"], reason)).slice(0, EXAMPLES)
        found.append(Fault(reason=reason, count=count, examples=[_shorten(row) for row in rows.to_pylist()]))
    return found


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    """Keep what a person can read: a faulty id may have a million characters."""
    return {name: shorten(value) if isinstance(value, str) else value for name, value in row.items()}


def shorten(text: str) -> str:
    """Cut a long text and say so."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"


def charts(assessment: Assessment) -> list[Chart]:
    """Return the charts that the log allows."""
    interactions = assessment.rows.interactions
    if not len(interactions):
        return []
    lengths = np.asarray(assessment.profile["length_counts"])
    drawn = [
        Chart(
            title="Users by history length",
            axis="interactions of a user",
            bars=_bars(_length_labels(), lengths),
        ),
        _popularity_chart(interactions),
    ]
    return [*drawn, _period_chart(interactions)] if assessment.log.time == "real" else drawn


def _length_labels() -> list[str]:
    ends = [edge - 1 for edge in LENGTH_EDGES[1:]]
    closed = [f"{first}" if first == end else f"{first}-{end}" for first, end in zip(LENGTH_EDGES, ends, strict=False)]
    return [*closed, f"{LENGTH_EDGES[-1]}+"]


def _popularity_chart(interactions: pa.Table) -> Chart:
    counts = event_counts(interactions["item_id"])["counts"].to_numpy()
    powers = np.floor(np.log2(counts)).astype(int)
    classes = np.bincount(powers)
    labels = [
        f"{2**power}" if power == 0 else f"{2**power:,}-{2 ** (power + 1) - 1:,}" for power in range(len(classes))
    ]
    return Chart(title="Items by popularity", axis="interactions of an item", bars=_bars(labels, classes))


def _period_chart(interactions: pa.Table) -> Chart:
    times = interactions["timestamp"].cast(pa.int64()).to_numpy()
    days = max(1, -(-(times.max() - times.min() + 1) // (_PERIODS * _DAY)))
    first = times.min() // _DAY
    periods = np.bincount((times // _DAY - first) // days)
    labels = [str(np.datetime64(int(first + days * period), "D")) for period in range(len(periods))]
    title = "Events per day" if days == 1 else f"Events per {days} days"
    return Chart(title=title, axis="first day of the period, UTC", bars=_bars(labels, periods))


def _bars(labels: list[str], counts: np.ndarray[Any, Any]) -> list[Bar]:
    highest = max(1, int(counts.max()))
    pairs = zip(labels, counts.tolist(), strict=True)
    return [Bar(label=label, count=count, height=count / highest) for label, count in pairs]
