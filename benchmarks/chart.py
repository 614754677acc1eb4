"""A line chart on logarithmic axes as a self-contained SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from elcrec.pages.drawing import GRID, INK, INTENT_COLORS, MUTED

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 50, 50
_LABEL = 15


def log_lines(series: Mapping[str, Points], *, title: str, across: str, up: str) -> str:
    """Draw each series as a line with its name at the end.

    Args:
        series: points (x, y) by name, all positive, in the order of x.
        title: above the chart.
        across: label of the horizontal axis.
        up: label of the vertical axis.
    """
    low_x, high_x = _decades([x for points in series.values() for x, _ in points])
    low_y, high_y = _decades([y for points in series.values() for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)
        above = (math.log10(y) - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + right, 1), round(_HEIGHT - _BOTTOM - above, 1)

    parts = [_text(_LEFT, 22, title, INK, "font-weight='bold'")]
    for power in range(low_x, high_x + 1):
        x, _ = place(10**power, 10**low_y)
        parts.append(_text(x, _HEIGHT - 28, f"{10**power:,}", MUTED, "text-anchor='middle'"))
    for power in range(low_y, high_y + 1):
        _, y = place(10**low_x, 10**power)
        parts.append(f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y}' y2='{y}' stroke='{GRID}'/>")
        parts.append(_text(_LEFT - 8, y + 4, f"{10**power:g}", MUTED, "text-anchor='end'"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, MUTED, "text-anchor='middle'"))
    parts.append(_text(_LEFT, 36, up, MUTED))
    placed = {name: [place(*point) for point in points] for name, points in series.items()}
    labels = _label_heights({name: points[-1][1] for name, points in placed.items()})
    for color, (name, points) in zip(INTENT_COLORS, placed.items(), strict=False):
        parts += _line(points, color)
        parts.append(_text(points[-1][0] + 10, labels[name] + 4, name, color))
    return _document(parts, title)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _label_heights(ends: Mapping[str, float]) -> dict[str, float]:
    """Return the height of each name: at the end of its line, moved down if it would cover another."""
    heights: dict[str, float] = {}
    for name in sorted(ends, key=ends.__getitem__):
        heights[name] = max([ends[name], *(height + _LABEL for height in heights.values())])
    return heights


def _line(points: Points, color: str) -> list[str]:
    path = " ".join(f"{x},{y}" for x, y in points)
    dots = [f"<circle cx='{x}' cy='{y}' r='3.5' fill='{color}'/>" for x, y in points]
    return [f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2'/>", *dots]


def _text(x: float, y: float, text: str, color: str, more: str = "") -> str:
    return f"<text x='{x}' y='{y}' fill='{color}' {more}>{escape(text)}</text>"


def _document(parts: Sequence[str], title: str) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
    style = f"aria-label='{escape(title, quote=True)}' font-family='sans-serif' font-size='12'>"
    background = f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='white'/>"
    return "\n".join([head + style, background, *parts, "</svg>", ""])
