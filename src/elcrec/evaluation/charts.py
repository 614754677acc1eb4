"""The report's charts, as inline SVG: same findings, same bytes."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.evaluation.bootstrap import Bootstrap

COLORS = {"model": "#3346c8", "baseline": "#e0873a", "popularity": "#a3acba"}
INTENT_COLORS = (
    "#3346c8", "#e0873a", "#1d9a8a", "#c2407a", "#7a5bd0", "#5c9e31",
    "#d1533f", "#2f8fd0", "#b08a1e", "#8a4f9e", "#4f7a6b", "#a35a3a",
)  # fmt: skip
OTHERS = "#cbd2dc"
INK, MUTED, GRID = "#1d2433", "#667085", "#e8ebf0"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#c5ccd6",
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.dpi": 150,
}
_CURVE_POINTS = 160
_ABOVE: dict[str, Any] = {"loc": "outside upper right", "ncols": 3, "fontsize": 9}
_HALO = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
Labels = Mapping[str, str]


def comparison(resampled: Bootstrap, labels: Labels) -> str:
    """HR and NDCG at every cutoff, a bar a ranking with its interval."""
    with _figure(10.4, 3.3, columns=2) as (axes, finish):
        for axis, metric, title in zip(axes, ("hr", "ndcg"), ("Hit rate", "NDCG"), strict=True):
            names = [f"{metric}@{k}" for k in (5, 10, 20)]
            for place, ranking in enumerate(labels):
                estimates = [resampled.estimate(ranking, name) for name in names]
                means = np.array([e.mean for e in estimates])
                error = np.abs([means - [e.low for e in estimates], [e.high for e in estimates] - means])
                _bars(axis, place, len(labels), means, COLORS[ranking], labels[ranking], error)
            axis.set_title(title)
            axis.set_xticks(range(len(names)), [f"@{k}" for k in (5, 10, 20)])
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), **_ABOVE)
        return finish("Accuracy of the model beside the baselines")


def training_curves(history: pd.DataFrame, best_epoch: int) -> str:
    """The terms of the loss, and validation NDCG@20, by epoch."""
    with _figure(10.4, 3.3, columns=2) as (axes, finish):
        terms = [name for name in ("next_item", "sequence", "intent", "cluster") if history[name].notna().any()]
        for name, color in zip(terms, INTENT_COLORS, strict=False):
            axes[0].plot(history["epoch"], history[name], color=color, label=name.replace("_", " "))
        axes[0].set_title("Weighted loss terms")
        axes[0].legend(fontsize=9)
        valid = history.dropna(subset="valid_ndcg@20")
        axes[1].plot(valid["epoch"], valid["valid_ndcg@20"], color=COLORS["model"])
        best = valid[valid["epoch"] == best_epoch]
        axes[1].plot(best["epoch"], best["valid_ndcg@20"], "o", color=COLORS["model"])
        for x, y in zip(best["epoch"], best["valid_ndcg@20"], strict=True):
            side = "right" if x > valid["epoch"].mean() else "left"
            place = {"xytext": (0, 8), "textcoords": "offset points", "ha": side}
            axes[1].annotate(f"epoch {x}: {y:.4f}", (x, y), fontsize=8.5, **place)
        axes[1].margins(y=0.14)
        axes[1].set_title("Validation NDCG@20")
        for axis in axes:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        return finish("Training curves")


def hit_curve(ranks: Mapping[str, npt.NDArray[np.int32]], labels: Labels, num_items: int) -> str:
    """Share of users whose target stands within the first k, for every k up to the catalogue."""
    with _figure(10.4, 3.5) as ((axis,), finish):
        k = np.unique(np.geomspace(1, num_items, _CURVE_POINTS).round())
        for name, label in labels.items():
            share = np.searchsorted(np.sort(ranks[name]), k, side="right") / len(ranks[name])
            axis.plot(k, share, color=COLORS[name], label=label, linewidth=1.8)
        axis.axvline(20, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axis.text(20, 1.0, " 20", color=MUTED, fontsize=8.5, va="top")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("k: items looked at (log scale)")
        axis.set_title("Share of users who find their next item within the first k")
        axis.legend(fontsize=9, loc="upper left")
        return finish("Cumulative hit rate by k")


def segment_bars(segments: pd.DataFrame, labels: Labels) -> str:
    """NDCG@20 by group, one panel a partition."""
    titles = {"history_length": "NDCG@20 by history length", "target_popularity": "NDCG@20 by target popularity"}
    with _figure(10.4, 3.5, columns=2) as (axes, finish):
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            table = segments[segments["segment"] == name]
            for place, ranking in enumerate(labels):
                column = "ndcg@20" if ranking == "model" else f"{ranking}_ndcg@20"
                values = table[column].to_numpy()
                error = None
                if ranking == "model":
                    error = np.abs([values - table["ndcg@20_low"], table["ndcg@20_high"] - values])
                _bars(axis, place, len(labels), values, COLORS[ranking], labels[ranking], error)
            groups = zip(table["group"], table["users"], strict=True)
            ticks = [f"{group.replace(' (', chr(10) + '(')}\n{users:,} users" for group, users in groups]
            axis.set_xticks(range(len(ticks)), ticks, fontsize=8.5)
            axis.set_title(title)
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), **_ABOVE)
        return finish("Accuracy by group of users")


def intent_sizes(sizes: npt.NDArray[np.int64]) -> str:
    """Users of every intent, largest first, beside an even split."""
    with _figure(10.4, 2.9) as ((axis,), finish):
        ordered = np.sort(sizes)[::-1] / sizes.sum()
        colors = [*INTENT_COLORS[: len(ordered)], *[OTHERS] * (len(ordered) - len(INTENT_COLORS))]
        axis.bar(np.arange(1, len(ordered) + 1), ordered, color=colors, width=0.85)
        axis.axhline(1 / len(ordered), color=INK, linewidth=0.8, linestyle=(0, (3, 3)), label="even split")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        axis.set_title("Share of users in each intent, largest first")
        axis.set_xlabel("intents by size")
        axis.set_xlim(0.3, len(ordered) + 0.7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=9, loc="upper right")
        return finish("Sizes of the intents")


def intent_map(vectors: npt.NDArray[np.float32], intents: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64]) -> str:
    """Users coloured by intent, with the mean of each large intent, on the axes that spread the means most.

    Args:
        vectors: user vectors, [N, D].
        intents: each user's intent, none -1, [N].
        sizes: users of each intent, [K].
    """
    largest = np.argsort(-sizes, kind="stable")[: len(INTENT_COLORS)]
    place = {int(intent): index for index, intent in enumerate(largest) if np.any(intents == intent)}
    means = np.stack([vectors[intents == intent].mean(axis=0) for intent in place])
    middle, axes_2D = principal_axes(means)
    points, centers = (vectors - middle) @ axes_2D.T, (means - middle) @ axes_2D.T
    with _figure(10.4, 5.2) as ((axis,), finish):
        colors = [INTENT_COLORS[place[i]] if i in place else OTHERS for i in intents.tolist()]
        axis.scatter(*points.T, c=colors, s=13, alpha=0.7, linewidths=0, rasterized=True)
        for (intent, index), center in zip(place.items(), centers, strict=True):
            axis.plot(*center, "o", markersize=10, color=INTENT_COLORS[index], markeredgecolor="white")
            label = {"xytext": (7, 4), "textcoords": "offset points", "weight": "bold", "bbox": _HALO}
            axis.annotate(str(intent), center, **label)
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.set_title(f"{len(vectors):,} users, coloured by the {len(place)} largest intents")
        return finish("Map of users and intents")


def principal_axes(
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean, [D], and the first two principal axes, [2, D]; zeros for axes that do not exist.

    The sign of an axis is chosen so that its largest entry is positive.
    """
    middle = vectors.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(vectors - middle, full_matrices=False)
    axes_2D = np.zeros((2, vectors.shape[1]))
    axes_2D[: len(axes)] = axes[:2]
    extreme = axes_2D[range(2), np.abs(axes_2D).argmax(axis=1)]
    return middle, axes_2D * np.where(extreme < 0, -1, 1)[:, None]


def _bars(
    axis: Any,
    place: int,
    total: int,
    values: npt.NDArray[np.float64],
    color: str,
    label: str,
    error: npt.NDArray[np.float64] | None,
) -> None:
    width = 0.8 / total
    x = np.arange(len(values)) + (place - (total - 1) / 2) * width
    style = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2}
    axis.bar(x, values, width * 0.92, color=color, label=label, yerr=error, error_kw=style)


@contextmanager
def _figure(width: float, height: float, *, columns: int = 1) -> Iterator[tuple[Sequence[Any], Callable[[str], str]]]:
    """Yield the axes of a new figure, and a function from a title to its SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second that only the report needs
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, columns, squeeze=False)[0]

        def finish(title: str) -> str:
            buffer = io.StringIO()
            with mpl.rc_context({"svg.hashsalt": title}):
                figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
            return _inline(buffer.getvalue(), title)

        yield axes, finish


_METADATA = ("Date", "Creator", "Format", "Type")


def _inline(svg: str, title: str) -> str:
    """Cut the XML head, drop ids that nothing refers to (they would repeat in the page), make it scale."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
