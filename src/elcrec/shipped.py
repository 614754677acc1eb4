"""What an installed package brings along: params.yaml, the presets and the Feast repository, as a checkout has them."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "share"
"""Filled when the wheel is built (pyproject.toml); a checkout has the files themselves."""


def own_or_shipped(path: Path) -> Path:
    """Return `path`, or the file or folder of that name that came with the package where there is none."""
    shipped = SHIPPED / path
    if path.exists() or path.is_absolute() or not shipped.exists():
        return path
    logger.info("%s is not in this folder: taken from the package", path)
    return shipped
