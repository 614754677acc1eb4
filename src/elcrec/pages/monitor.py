"""The monitor's verdict as a page: the content of monitor.json in charts and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elcrec.monitoring.checks import SIDES, Score
from elcrec.monitoring.daily import Ratio
from elcrec.monitoring.profile import NO_PROFILE, Profile
from elcrec.monitoring.sentences import NAMES
from elcrec.monitoring.state import BundleState, State
from elcrec.monitoring.thresholds import HORIZON
from elcrec.monitoring.verdict import Day, Judgement
from elcrec.pages.drawing import COLORS, INTENT_COLORS, OTHERS, figure, label_some
from elcrec.pages.render import render

_TONES = {"fine": "good", "warn": "main", "retrain": "bad", "learning": ""}
_MOST_TICKS, _MOST_INTENTS, _MOST_DAYS = 8, 24, 60


def write_monitor_page(path: Path, state: State, training: Profile = NO_PROFILE) -> None:
    """Write the page.

    Args:
        path: the file to write.
        state: the findings.
        training: the champion's training profile, if it is known.
    """
    shown = next((each for each in state.bundles if each.digest == state.bundle), None)
    days = [] if shown is None else _days(shown)[-_MOST_DAYS:]
    judgements = {} if shown is None else {one.date: one for one in shown.judgements}
    charts = {} if not days else _charts(shown, days, [one for one in judgements.values() if one.judged], training)
    page = {
        "state": state,
        "tone": _TONES[state.verdict],
        "bundle": shown,
        "rows": [_row(day, judgements.get(day.date), shown) for day in reversed(days)],
        "checks": _checks(shown),
        "charts": charts,
        "horizon": HORIZON,
        "config": state.config,
    }
    render("monitor.html.jinja", path, page)


def _days(bundle: BundleState) -> list[Day]:
    return [*(bundle.reference.days if bundle.reference else ()), *bundle.days]


def _row(day: Day, judgement: Judgement | None, bundle: BundleState | None) -> dict[str, Any]:
    """Return the row of a day in the table of days."""
    ratios = day.measured.ratios
    row = {"date": day.date, "measured": day.measured, "settled": day.settled}
    row |= {name: ratios[name].value if name in ratios else None for name in ("ctr", "conversion", "hit_rate", "cold")}
    if judgement is None:
        of_reference = bundle is not None and bundle.reference is not None
        return row | {"verdict": "reference" if of_reference else "learning", "bad": ()}
    return row | {"verdict": judgement.verdict if judgement.judged else "too few users", "bad": judgement.bad}


def _checks(bundle: BundleState | None) -> list[dict[str, Any]]:
    """Return the last judged number of every check beside its reference."""
    last: dict[str, tuple[str, Score]] = {}
    for judgement in () if bundle is None else bundle.judgements:
        last |= {score.check: (judgement.date, score) for score in judgement.scores}
    limits = {} if bundle is None else bundle.limits
    return [
        {
            "name": _called(score),
            "date": date,
            "score": score,
            "limit": limits[check],
            "bad": score.beyond(limits[check]),
        }
        | {"share": check not in {"mix", "history", "calibration"}, "side": SIDES[check]}
        for check, (date, score) in last.items()
    ]


def _called(score: Score) -> str:
    name = NAMES[score.check]
    return f"furthest intent, {score.cell}" if score.cell else name


def _charts(
    bundle: BundleState | None, days: Sequence[Day], judged: Sequence[Judgement], training: Profile
) -> dict[str, str]:
    charts = {"rates": _rates(days)}
    if bundle is not None and judged:
        charts["scores"] = _scores(bundle, judged[-_MOST_DAYS:])
    shown = {days[-1].date: days[-1].measured}
    if bundle is not None and bundle.reference is not None:
        shown = {"reference days": bundle.reference.pooled} | shown
    charts["intents"] = _intents({name: each.intents for name, each in shown.items()}, training.intents)
    charts["lengths"] = _lengths({name: each.lengths for name, each in shown.items()}, training.lengths)
    return {name: chart for name, chart in charts.items() if chart}


def _rates(days: Sequence[Day]) -> str:
    """Click-through rate and conversion by day, with intervals by user."""
    with figure(10.4, 3.0, columns=2) as (axes, finish):
        for axis, name in zip(axes, ("ctr", "conversion"), strict=True):
            known = [
                (place, day.measured.ratios[name]) for place, day in enumerate(days) if name in day.measured.ratios
            ]
            x, value = [place for place, _ in known], np.array([ratio.value for _, ratio in known])
            half = 1.96 * np.sqrt([ratio.variance for _, ratio in known])
            axis.fill_between(x, value - half, value + half, color=COLORS["model"], alpha=0.15, linewidth=0)
            axis.plot(x, value, color=COLORS["model"], marker="o", markersize=3)
            label_some(axis, [day.date[5:] for day in days], most=_MOST_TICKS)
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
            axis.set_title(f"{NAMES[name][0].upper()}{NAMES[name][1:]} by day")
        return finish("Click-through rate and conversion by day")


def _scores(bundle: BundleState, judged: Sequence[Judgement]) -> str:
    """Every check by day, as a fraction of its limit."""
    with figure(10.4, 3.4) as ((axis,), finish):
        for color, check in zip(INTENT_COLORS, SIDES, strict=False):
            points = [
                (place, _drawn(score) / bundle.limits[check])
                for place, judgement in enumerate(judged)
                for score in judgement.scores
                if score.check == check
            ]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, color=color, marker="o", markersize=3, linewidth=1.2, label=NAMES[check])
        for side in (-1, 1):
            axis.axhline(side, color="#b42318", linewidth=1, linestyle="--")
        label_some(axis, [judgement.date[5:] for judgement in judged], most=_MOST_TICKS)
        axis.set_title("Distance from the reference days, 1 is the limit")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        return finish("Distance of each check from the reference days by day")


def _drawn(score: Score) -> float:
    """Return a score as it is drawn: without its sign for the furthest intent, and at least 0 if only a rise is bad."""
    if score.cell:
        return abs(score.score)
    return max(score.score, 0.0) if SIDES[score.check] == "rise" else score.score


def _intents(shown: Mapping[str, Mapping[str, Ratio]], training: Mapping[str, float]) -> str:
    """Share of each intent: on the reference days, now, and at the evaluation; largest first."""
    first, *_ = [each for each in shown.values() if each] or [{}]
    names = sorted(
        {name for each in shown.values() for name in each},
        key=lambda name: -first[name].value if name in first else 0,
    )
    return _shares("Share of each intent", names[:_MOST_INTENTS], shown, training)


def _lengths(shown: Mapping[str, Mapping[str, Ratio]], training: Mapping[str, float]) -> str:
    """Share of each group of known histories: on the reference days, now, and at the evaluation."""
    names = sorted({name for each in shown.values() for name in each}, key=int)
    title = "Share of known histories by length, from so many items on"
    return _shares(title, names, shown, training)


def _shares(
    title: str, names: Sequence[str], shown: Mapping[str, Mapping[str, Ratio]], training: Mapping[str, float]
) -> str:
    """Bars side by side; no chart if there are no names."""
    if not names:
        return ""
    colors = {"evaluation": OTHERS, "reference days": COLORS["baseline"]}
    series = {"evaluation": training} if training else {}
    series |= {label: {name: ratio.value for name, ratio in each.items()} for label, each in shown.items() if each}
    with figure(10.4, 3.0) as ((axis,), finish):
        width = 0.8 / len(series)
        for place, (label, shares) in enumerate(series.items()):
            x = np.arange(len(names)) + (place - (len(series) - 1) / 2) * width
            color = colors.get(label, COLORS["model"])
            axis.bar(x, [shares.get(name, 0.0) for name in names], width * 0.92, color=color, label=label)
        axis.set_xticks(range(len(names)), names, fontsize=8.5)
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axis.set_title(title)
        axis.legend(fontsize=8)
        return finish(title)
