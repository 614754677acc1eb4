"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_QUIET_SECONDS = 10.0


def track(work: Iterable[T], *, total: int, label: str, quiet: bool = False) -> Iterator[T]:
    """Yield from `work` and show how far it is, its rate and the time left, on standard error.

    Off a terminal a line appears every ten seconds, so short work prints nothing. `quiet` shows nothing at all.
    """
    if quiet:
        yield from work
    elif sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only terminals pay for it

        yield from tqdm(work, total=total, desc=label, leave=False, dynamic_ncols=True)
    else:
        yield from _print_lines(work, total, label)


def _print_lines(work: Iterable[T], total: int, label: str) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(work, start=1):
        yield item
        now = time.monotonic()
        if now - said >= _QUIET_SECONDS:
            said, rate = now, done / (now - started)
            left = (total - done) / rate
            line = f"{label}: {done}/{total} ({done / total:.0%}), {rate:.1f}/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - showing progress is its job
