"""The style of charts, and conversion of figures to inline SVG: the same content gives the same bytes."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

COLORS = {"model": "#3346c8", "baseline": "#e0873a", "popularity": "#a3acba"}
INTENT_COLORS = (
    "#3346c8", "#e0873a", "#1d9a8a", "#c2407a", "#7a5bd0", "#5c9e31",
    "#d1533f", "#2f8fd0", "#b08a1e", "#8a4f9e", "#4f7a6b", "#a35a3a",
)  # fmt: skip
OTHERS = "#cbd2dc"
INK, MUTED, GRID = "#1d2433", "#667085", "#e8ebf0"
WHISKERS: dict[str, Any] = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2}
"""How an interval is drawn."""

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


def bars(
    axis: Any,
    place: int,
    total: int,
    values: npt.NDArray[np.float64],
    color: str,
    label: str,
    error: npt.NDArray[np.float64] | None,
) -> None:
    """Draw the bars of ranking number `place` among `total`, beside those of the others."""
    width = 0.8 / total
    x = np.arange(len(values)) + (place - (total - 1) / 2) * width
    axis.bar(x, values, width * 0.92, color=color, label=label, yerr=error, error_kw=WHISKERS)


def label_some(axis: Any, labels: Sequence[str], *, most: int) -> None:
    """Label at most `most` of the places 0, 1, 2, … along the x axis, evenly chosen."""
    step = max(1, -(-len(labels) // most))
    axis.set_xticks(range(0, len(labels), step), labels[::step], fontsize=8.5)


@contextmanager
def figure(width: float, height: float, *, columns: int = 1) -> Iterator[tuple[Sequence[Any], Callable[[str], str]]]:
    """Yield the axes of a new figure, and a function from a title to its SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - takes half a second, needed only for pages
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with mpl.rc_context(_STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(1, columns, squeeze=False)[0]

        def finish(title: str) -> str:
            buffer = io.StringIO()
            with mpl.rc_context({"svg.hashsalt": title}):
                canvas.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
            return _inline(buffer.getvalue(), title)

        yield axes, finish


_METADATA = ("Date", "Creator", "Format", "Type")


def _inline(svg: str, title: str) -> str:
    """Remove the XML head and unused ids (which would repeat in the page), and make the image scale."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
