"""A sample of rows that is evenly spread, the same every time."""

import numpy as np
import numpy.typing as npt


def evenly_spread(total: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of the numbers from 0 to `total` - 1, ascending and evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(total, most), dtype=np.int64))
