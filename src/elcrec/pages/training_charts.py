"""Charts of a training: losses, validation, intents and time by epoch."""

from itertools import cycle
from typing import Any

import pandas as pd

from elcrec.pages.drawing import COLORS, INTENT_COLORS, MUTED, figure
from elcrec.training.epoch_columns import SECONDS, terms_among

SIDE_BY_SIDE = (5.2, 3.2)
"""Width in inches of a chart that shares a row with another."""


def training_curves(history: pd.DataFrame, best_epoch: int) -> str:
    """The terms of the loss, and validation NDCG@20, by epoch."""
    with figure(10.4, 3.3, columns=2) as (axes, finish):
        _draw_terms(axes[0], history)
        _draw_validation(axes[1], history, "NDCG@20", best_epoch)
        return finish("Training curves")


def loss_terms(history: pd.DataFrame) -> str:
    """The loss and its terms by epoch."""
    with figure(*SIDE_BY_SIDE) as ((axis,), finish):
        _draw_terms(axis, history)
        if len(_terms(history)) > 1:
            axis.plot(history["epoch"], history["loss"], color=MUTED, linestyle=(0, (3, 2)), label="sum")
            axis.legend(fontsize=9, ncols=2)
        return finish("Loss by epoch")


def validation_curve(history: pd.DataFrame, metric: str, best_epoch: int) -> str:
    """A validation metric (`NDCG@20`, `HR@20`) by epoch, with a mark at the kept epoch."""
    with figure(*SIDE_BY_SIDE) as ((axis,), finish):
        _draw_validation(axis, history, metric, best_epoch)
        return finish(f"Validation {metric} by epoch")


def effective_intents(history: pd.DataFrame, num_intents: int) -> str:
    """The effective number of intents by epoch, on an axis from 0 to all intents."""
    with figure(*SIDE_BY_SIDE) as ((axis,), finish):
        known = history.dropna(subset="effective_intents")
        _draw_line(axis, known["epoch"], known["effective_intents"], INTENT_COLORS[2])
        axis.axhline(num_intents, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axis.text(known["epoch"].min(), num_intents, f"all {num_intents}", color=MUTED, fontsize=8.5, va="bottom")
        axis.set_ylim(0, num_intents * 1.12)
        axis.set_title("Effective number of intents")
        return finish("Effective number of intents by epoch")


def pace(history: pd.DataFrame, *, alone: bool) -> str:
    """Seconds of each epoch, including validation; the chart is `alone` in its row or beside another."""
    with figure(*((10.4, 2.2) if alone else SIDE_BY_SIDE)) as ((axis,), finish):
        axis.bar(history["epoch"], history[SECONDS], width=0.85, color=COLORS["popularity"])
        _name_epochs(axis)
        axis.set_title("Seconds per epoch")
        return finish("Seconds by epoch")


def _draw_terms(axis: Any, history: pd.DataFrame) -> None:
    for name, color in zip(_terms(history), cycle(INTENT_COLORS), strict=False):
        _draw_line(axis, history["epoch"], history[name], color, label=name.replace("_", " "))
    axis.set_title("Weighted loss terms")
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _terms(history: pd.DataFrame) -> list[str]:
    return [name for name in terms_among(map(str, history)) if history[name].notna().any()]


def _draw_validation(axis: Any, history: pd.DataFrame, metric: str, best_epoch: int) -> None:
    column = f"valid_{metric.lower()}"
    known = history.dropna(subset=column)
    _draw_line(axis, known["epoch"], known[column], COLORS["model"])
    best = known[known["epoch"] == best_epoch]
    for x, y in zip(best["epoch"], best[column], strict=True):
        side = "right" if x > known["epoch"].mean() else "left"
        axis.plot(x, y, "o", color=COLORS["model"])
        place = {"xytext": (0, 8), "textcoords": "offset points", "ha": side}
        axis.annotate(f"epoch {x}: {y:.4f}", (x, y), fontsize=8.5, **place)
    axis.margins(y=0.14)
    axis.set_title(f"Validation {metric}")


def _draw_line(axis: Any, x: "pd.Series[Any]", y: "pd.Series[Any]", color: str, **style: Any) -> None:
    """Draw a line, or a dot if there is only one epoch."""
    axis.plot(x, y, color=color, marker="o" if len(x) == 1 else None, markersize=4, **style)
    _name_epochs(axis)


def _name_epochs(axis: Any) -> None:
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
