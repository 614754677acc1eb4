"""Charts of intents: their sizes, a map of their users, and their differences.

Axes: `N` users, `D` hidden size, `K` intents, `C` chosen intents, `P` planted intents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.evaluation.intent_profiles import largest, principal_axes
from elcrec.pages.drawing import COLORS, INK, INTENT_COLORS, MUTED, OTHERS, WHISKERS, figure

_HALO = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
_CELL_TEXT = 8
_DARK = 0.6
"""Tiles above this value have white numbers."""
_MOST_LABELLED = 14
"""Largest width of a grid with numbers; in a wider one the cells are too small."""

FloatArray = npt.NDArray[np.float64]


def intent_sizes(sizes: npt.NDArray[np.int64]) -> str:
    """Users of every intent, largest first, compared with an even split."""
    with figure(10.4, 2.9) as ((axis,), finish):
        ordered = np.sort(sizes)[::-1] / sizes.sum()
        colors = [color_of(place) for place in range(len(ordered))]
        axis.bar(np.arange(1, len(ordered) + 1), ordered, color=colors, width=0.85)
        axis.axhline(1 / len(ordered), color=INK, linewidth=0.8, linestyle=(0, (3, 3)), label="even split")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        axis.set_title("Share of users in each intent, largest first")
        axis.set_xlabel("intents by size")
        axis.set_xlim(0.3, len(ordered) + 0.7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", fontsize=9)
        return finish("Sizes of the intents")


def intent_map(vectors: npt.NDArray[np.float32], intents: npt.NDArray[np.integer], sizes: npt.NDArray[np.int64]) -> str:
    """Users coloured by intent, with the mean of each large intent, on the principal axes of the means.

    Args:
        vectors: user vectors, [N, D].
        intents: each user's intent, -1 if none, [N].
        sizes: users of each intent, [K].
    """
    chosen = largest(sizes, len(INTENT_COLORS))
    place = {intent: index for index, intent in enumerate(chosen) if np.any(intents == intent)}
    means = np.stack([vectors[intents == intent].mean(axis=0) for intent in place])
    middle, axes_2D = principal_axes(means)
    points, centers = (vectors - middle) @ axes_2D.T, (means - middle) @ axes_2D.T
    with figure(10.4, 5.2) as ((axis,), finish):
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


def accuracy(profiles: pd.DataFrame, chosen: Sequence[int], overall: float) -> str:
    """NDCG@20 of the users of each chosen intent, compared with that of all users.

    Args:
        profiles: result of `profile_intents`.
        chosen: intents from left to right.
        overall: NDCG@20 of all users.
    """
    with figure(10.4, 2.9) as ((axis,), finish):
        rows = profiles.loc[list(chosen)]
        place = np.arange(len(rows))
        error = 1.96 * rows["ndcg@20_error"].fillna(0)
        colors = [color_of(index) for index in place.tolist()]
        axis.bar(place, rows["ndcg@20"], width=0.8, color=colors, yerr=error, error_kw=WHISKERS)
        axis.axhline(overall, color=INK, linewidth=0.8, linestyle=(0, (3, 3)), label="all users")
        axis.margins(y=0.16)
        axis.set_ylim(bottom=0)
        axis.set_xticks(place, [str(intent) for intent in chosen], fontsize=8.5)
        axis.set_xlabel("intent, largest first")
        axis.set_title("NDCG@20 of the users of each intent")
        axis.figure.legend(*axis.get_legend_handles_labels(), loc="outside upper right", fontsize=9)
        return finish("Accuracy by intent")


def similarity(cosines: FloatArray, chosen: Sequence[int]) -> str:
    """Similarity of the chosen intents: the cosine between the means of their users, [C, C]."""
    names = [str(intent) for intent in chosen]
    shown = np.where(np.eye(len(names), dtype=bool), np.nan, cosines)
    with figure(5.2, 4.6) as ((axis,), finish):
        _grid(axis, shown, names, names, "{:.2f}", COLORS["baseline"])
        axis.set_title("Cosine between intents")
        return finish("Similarity of the intents")


def moves(shares: FloatArray, chosen: Sequence[int]) -> str:
    """The intents to which users of the chosen intents move with one more item, [C, C + 1]; last column: all others."""
    names = [str(intent) for intent in chosen]
    with figure(5.2, 4.6) as ((axis,), finish):
        _grid(axis, shares, names, [*names, "other"], "{:.0%}", COLORS["model"])
        axis.set_ylabel("without their last item")
        axis.set_xlabel("with it")
        axis.set_title("Intent before and after one item")
        return finish("Moves between intents")


def planted(counts: npt.NDArray[np.int64], chosen: Sequence[int]) -> str:
    """The planted intents that the users of each chosen intent follow.

    Args:
        counts: users by planted and by learned intent, [P, K].
        chosen: learned intents; they are ordered by the planted intent that most of their users follow.
    """
    kept = counts[:, list(chosen)]
    order = np.argsort(kept.argmax(axis=0), kind="stable")
    shares = kept[:, order] / kept.sum(axis=0)[order]
    names = [str(chosen[index]) for index in order]
    with figure(10.4, 1.1 + 0.26 * len(counts)) as ((axis,), finish):
        _grid(axis, shares, [str(row) for row in range(len(counts))], names, "{:.0%}", COLORS["model"])
        axis.set_ylabel("planted intent")
        axis.set_xlabel("learned intent")
        axis.set_title("Share of each learned intent's users by the planted intent that they follow")
        return finish("Learned beside planted intents")


def _grid(
    axis: Any, values: FloatArray, rows: Sequence[str], columns: Sequence[str], template: str, color: str
) -> None:
    """Tiles from pale at 0 to `color` at 1, with numbers if there is room."""
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415 - takes half a second, needed only for pages

    scale = LinearSegmentedColormap.from_list("tiles", ["#f6f7f9", color])
    axis.pcolormesh(np.ma.masked_invalid(values), cmap=scale, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    if len(columns) <= _MOST_LABELLED:
        for (row, column), value in np.ndenumerate(values):
            text = template.format(value) if np.isfinite(value) else ""
            tone = "white" if value > _DARK else MUTED
            if text not in {"", template.format(0.0)}:
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=tone, fontsize=_CELL_TEXT)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=8.5)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8.5)
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def color_of(place: int) -> str:
    """Return the colour of the intent at a position in the order of size."""
    return INTENT_COLORS[place] if place < len(INTENT_COLORS) else OTHERS
