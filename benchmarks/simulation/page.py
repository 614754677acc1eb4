"""The page of the simulated month."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulation.month import DayPlayed
from benchmarks.simulation.shop import Habits
from elcrec.pages.drawing import COLORS, INK, INTENT_COLORS, MUTED, OTHERS, figure
from elcrec.pages.render import render
from elcrec.serving.arms import Arm

_MARKS = {
    "drift": ("taste drifts", "#b42318"),
    "retrain": ("retraining", "#b08a1e"),
    "split": ("two versions", MUTED),
    "promote": ("promotion", "#1a7f5a"),
}
"""Notes that are drawn, what they are called, and their colours."""
_VERDICTS = {"learning": OTHERS, "fine": "#1a7f5a", "warn": "#3346c8", "retrain": "#b42318"}
_MODES = {"shadow": "#c3c9ee", "split": "#e0873a"}
_MOST_TICKS = 10


def write_page(path: Path, days: Sequence[DayPlayed], habits: Habits, gate: Mapping[str, Any] | None) -> None:
    """Write the page.

    Args:
        path: the file to write.
        days: the simulated days.
        habits: the habits of the shop's users.
        gate: gate.json of the last push; `None` if there was none after the first.
    """
    log = None if gate is None else gate["on_the_log"]
    page = {
        "days": days,
        "answers": sum(day.served.answers.total() for day in days),
        "habits": habits,
        "log": log,
        "estimates": [] if log is None or log["estimates"] is None else _estimates(log["estimates"]),
        "levels": _levels(days),
        "charts": [_rates(days), _verdicts(days), _intents(days, habits)],
        "notes": [(day, note) for day in days for note in day.notes],
    }
    render("simulation.html.jinja", path, page, folder=Path(__file__).parent)


def first(days: Sequence[DayPlayed], kind: str) -> int | None:
    """Return the number of the first day with a note of a kind; `None` if there is none."""
    return next((day.number for day in days for name, _ in day.notes if name == kind), None)


def mean_ctr(days: Sequence[DayPlayed], since: int, until: int) -> float | None:
    """Return the click-through rate from day `since` until before day `until`; `None` without answers."""
    rates = [rate for day in days if since <= day.number < until and (rate := day.served.ctr()) is not None]
    return float(np.mean(rates)) if rates else None


def _levels(days: Sequence[DayPlayed]) -> list[tuple[str, float | None, str]]:
    """Return the click-through rate of the phases of the month."""
    end = days[-1].number + 1
    drift, promoted = first(days, "drift") or end, first(days, "promote") or end
    alarm = first(days, "retrain") or end
    return [
        ("Before the drift", mean_ctr(days, 1, drift), f"days 1 to {drift - 1}"),
        ("After it", mean_ctr(days, drift, min(alarm, promoted) + 1), "until the alarm"),
        ("After the promotion", mean_ctr(days, promoted + 1, end), f"from day {promoted + 1}"),
    ]


def _estimates(known: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    names = {
        "logged": "champion, as logged",
        "doubly_robust": "challenger, doubly robust",
        "snips": "challenger, SNIPS",
        "ips": "challenger, IPS",
        "difference": "challenger minus champion, doubly robust",
    }
    return [(text, known[name]) for name, text in names.items()]


def _rates(days: Sequence[DayPlayed]) -> str:
    """Click-through rate by day, of each arm if there are two, with marks for events."""
    with figure(10.4, 3.8) as ((axis,), finish):
        x = [day.number for day in days]
        axis.plot(x, [day.served.ctr() for day in days], color=COLORS["model"], marker="o", markersize=4, label="all")
        split = [day for day in days if day.mode == "split"]
        colors: dict[Arm, str] = {"challenger": "#1a7f5a", "champion": COLORS["baseline"]}
        for arm, color in colors.items():
            points = [(day.number, day.served.ctr(arm)) for day in split]
            if points:
                axis.plot(
                    *zip(*points, strict=True), color=color, linewidth=1.2, linestyle="--", label=f"{arm}'s users"
                )
        top = axis.get_ylim()[1] * 1.05
        axis.set_ylim(0, top)
        for place, (number, name) in enumerate(_marks(days)):
            text, color = _MARKS[name]
            axis.axvline(number, color=color, linewidth=1.2, linestyle=":" if name == "split" else "-")
            axis.text(number + 0.1, top * (0.06 + 0.07 * (place % 3)), text, color=color, fontsize=8.5, rotation=0)
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
        _day_axis(axis, x)
        axis.set_title("Click-through rate by day")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        return finish("Click-through rate by day, and what happened")


def _marks(days: Sequence[DayPlayed]) -> list[tuple[float, str]]:
    """Return the positions of marks: a drift before its day, the work of a morning after its day."""
    return [
        (day.number - 0.5 if name == "drift" else day.number + 0.5, name)
        for day in days
        for name, _ in day.notes
        if name in _MARKS
    ]


def _verdicts(days: Sequence[DayPlayed]) -> str:
    """Three strips: the monitor's verdict, the version that serves, and the mode for a challenger."""
    with figure(10.4, 1.7) as ((axis,), finish):
        for day in days:
            axis.barh(1, 0.94, left=day.number - 0.47, height=0.8, color=_VERDICTS[day.verdict])
            axis.text(day.number, 0, day.champion, ha="center", va="center", color=INK, fontsize=8.5)
            if day.mode != "off":
                axis.barh(-1, 0.94, left=day.number - 0.47, height=0.8, color=_MODES[day.mode])
        handles = [axis.barh(9, 0, color=color, label=name) for name, color in (_VERDICTS | _MODES).items()]
        axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        axis.set_yticks([1, 0, -1], ["verdict", "version", "beside it"], fontsize=8.5)
        axis.set_ylim(-1.6, 1.6)
        axis.grid(visible=False)
        _day_axis(axis, [day.number for day in days])
        axis.set_title("Monitor and versions")
        return finish("The monitor's verdict, and the version that serves, by day")


def _intents(days: Sequence[DayPlayed], habits: Habits) -> str:
    """Share of each planted intent among the users' events, by day."""
    count = habits.common + habits.rare
    share_KD = np.array([[day.served.wanted[intent] for day in days] for intent in range(count)], np.float64)
    share_KD /= np.maximum(share_KD.sum(0), 1)
    with figure(10.4, 3.2) as ((axis,), finish):
        labels = [f"intent {intent}{' (rare before)' if intent >= habits.common else ''}" for intent in range(count)]
        colors = [INTENT_COLORS[intent % len(INTENT_COLORS)] for intent in range(count)]
        axis.stackplot([day.number for day in days], share_KD, labels=labels, colors=colors, alpha=0.85, linewidth=0)
        axis.set_ylim(0, 1)
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        _day_axis(axis, [day.number for day in days])
        axis.set_title("What users do, by planted intent")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5, reverse=True)
        return finish("What users do, by planted intent and day")


def _day_axis(axis: Any, numbers: Sequence[int]) -> None:
    step = max(1, -(-len(numbers) // _MOST_TICKS))
    axis.set_xticks(list(numbers)[::step], [f"day {number}" for number in list(numbers)[::step]], fontsize=8.5)
    axis.set_xlim(numbers[0] - 0.7, numbers[-1] + 0.7)
