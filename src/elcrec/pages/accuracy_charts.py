"""Charts of accuracy: the model in comparison with the baselines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.evaluation.bootstrap import Bootstrap
from elcrec.evaluation.metrics import CUTOFFS
from elcrec.pages.drawing import COLORS, MUTED, bars, figure

_CURVE_POINTS = 160
_ABOVE: dict[str, Any] = {"loc": "outside upper right", "ncols": 3, "fontsize": 9}
Labels = Mapping[str, str]


def comparison(resampled: Bootstrap, labels: Labels) -> str:
    """HR and NDCG at every cutoff, one bar per ranking with its interval."""
    with figure(10.4, 3.3, columns=2) as (axes, finish):
        for axis, metric, title in zip(axes, ("hr", "ndcg"), ("Hit rate", "NDCG"), strict=True):
            names = [f"{metric}@{k}" for k in CUTOFFS]
            for place, ranking in enumerate(labels):
                estimates = [resampled.estimate(ranking, name) for name in names]
                means = np.array([e.mean for e in estimates])
                error = np.abs([means - [e.low for e in estimates], [e.high for e in estimates] - means])
                bars(axis, place, len(labels), means, COLORS[ranking], labels[ranking], error)
            axis.set_title(title)
            axis.set_xticks(range(len(names)), [f"@{k}" for k in CUTOFFS])
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), **_ABOVE)
        return finish("Accuracy of the model beside the baselines")


def hit_curve(ranks: Mapping[str, npt.NDArray[np.int32]], labels: Labels, num_items: int) -> str:
    """Share of users whose target is among the first k, for every k up to the size of the catalogue."""
    with figure(10.4, 3.5) as ((axis,), finish):
        k = np.unique(np.geomspace(1, num_items, _CURVE_POINTS).round())
        for name, label in labels.items():
            # A target that is not ranked, because the history contains it, is never found.
            found = np.sort(ranks[name][ranks[name] <= num_items])
            share = np.searchsorted(found, k, side="right") / len(ranks[name])
            axis.plot(k, share, color=COLORS[name], label=label, linewidth=1.8)
        axis.axvline(20, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axis.text(20, 1.0, " 20", color=MUTED, fontsize=8.5, va="top")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("k: items looked at (log scale)")
        axis.set_title("Share of users who find their next item within the first k")
        axis.figure.legend(*axis.get_legend_handles_labels(), **_ABOVE)
        return finish("Cumulative hit rate by k")


def segment_bars(segments: pd.DataFrame, labels: Labels) -> str:
    """NDCG@20 by group, one panel per partition."""
    titles = {"history_length": "NDCG@20 by history length", "target_popularity": "NDCG@20 by target popularity"}
    with figure(10.4, 3.5, columns=2) as (axes, finish):
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            table = segments[segments["segment"] == name]
            for place, ranking in enumerate(labels):
                column = "ndcg@20" if ranking == "model" else f"{ranking}_ndcg@20"
                values = table[column].to_numpy()
                error = None
                if ranking == "model":
                    error = np.abs([values - table["ndcg@20_low"], table["ndcg@20_high"] - values])
                bars(axis, place, len(labels), values, COLORS[ranking], labels[ranking], error)
            groups = zip(table["group"], table["users"], strict=True)
            ticks = [
                f"{group.replace(' (', chr(10) + '(')}\n{users:,} {'user' if users == 1 else 'users'}"
                for group, users in groups
            ]
            axis.set_xticks(range(len(ticks)), ticks, fontsize=8.5)
            axis.set_title(title)
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), **_ABOVE)
        return finish("Accuracy by group of users")
