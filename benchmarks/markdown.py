"""Figures and tables as Markdown."""

import re
import textwrap
from collections.abc import Sequence

Cells = Sequence[str]

_DECIMALS_MATTER_BELOW = 10
_LINE = 118


def table(head: Cells, rows: Sequence[Cells]) -> str:
    """Return a table; a column of numbers is aligned to the right."""
    numeric = [all(re.match(r"-?[\d.,]*[x%]?$", row[column]) for row in rows) for column in range(len(head))]
    rule = ["-:" if right else "-" for right in numeric]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def prose(text: str) -> str:
    """Return a paragraph in lines that fit."""
    return textwrap.fill(text, _LINE, break_long_words=False, break_on_hyphens=False)


def seconds(value: float) -> str:
    """Format seconds."""
    return f"{value:.2f}" if value < _DECIMALS_MATTER_BELOW else f"{value:,.1f}"


def mib(value: float) -> str:
    """Format MiB."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """Format a share."""
    return f"{share:.1%}"


def ratio(textbook: float, ours: float) -> str:
    """Format the ratio of the textbook's figure to ours."""
    return f"{textbook / ours:.1f}x" if ours > 0 else ""


def spread(values: Sequence[float]) -> str:
    """Format the lowest and highest of several runs."""
    return f"{seconds(min(values))} to {seconds(max(values))}, {len(values)} runs" if len(values) > 1 else "one run"
