"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_QUIET_SECONDS = 10.0


def track(work: Iterable[T], *, total: int, label: str, quiet: bool = False, step: int = 1) -> Iterator[T]:
    """Yield from `work` and show how far it is, its rate and the time left, on standard error.

    Each of the `total` pieces of work counts as `step`, such as the rows of a chunk.

    Off a terminal a line appears every ten seconds, so short work prints nothing. `quiet` shows nothing at all.
    """
    if quiet:
        yield from work
    elif sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only terminals pay for it

        scale = step if step > 1 else False
        yield from tqdm(work, total=total, desc=label, leave=False, dynamic_ncols=True, unit_scale=scale)
    else:
        yield from _print_lines(work, total, label, step)


def _print_lines(work: Iterable[T], total: int, label: str, step: int) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(work, start=1):
        yield item
        now = time.monotonic()
        if now - said >= _QUIET_SECONDS:
            said, rate = now, done / (now - started)
            left = (total - done) / rate
            count = f"{done * step}/{total * step} ({done / total:.0%})"
            line = f"{label}: {count}, {rate * step:.1f}/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - showing progress is its job
