"""Files that come with the package: params.yaml, the presets and the Feast repository.

A wheel holds copies of them; an editable installation has them in its checkout.
"""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

_IN_WHEEL = Path(__file__).parent / "share"
"""Filled when the wheel is built (pyproject.toml)."""
_IN_CHECKOUT = Path(__file__).parents[2]


def own_or_shipped(path: Path) -> Path:
    """Return `path` if it exists, else the file or folder of that name that came with the package."""
    folder = _IN_WHEEL if _IN_WHEEL.exists() else _IN_CHECKOUT
    shipped = folder / path
    if path.exists() or path.is_absolute() or not shipped.exists():
        return path
    logger.info("%s is not in this folder: taken from %s", path, folder)
    return shipped
