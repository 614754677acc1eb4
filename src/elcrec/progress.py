"""Progress display: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
_QUIET_SECONDS = 10.0


def track(work: Iterable[T], *, total: int | None, label: str, quiet: bool = False, step: int = 1) -> Iterator[T]:
    """Yield from `work` and show its progress, rate and remaining time on standard error.

    Each of the `total` pieces of work (`None` if unknown) counts as `step` units, such as the rows of a chunk.

    Without a terminal, a line appears every ten seconds, so short work prints nothing. With `quiet`, nothing is shown.
    """
    if quiet:
        yield from work
    elif sys.stderr.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only needed on a terminal

        scale = step if step > 1 else False
        yield from tqdm(work, total=total, desc=label, leave=False, dynamic_ncols=True, unit_scale=scale)
    else:
        yield from _print_lines(work, total, label, step)


def _print_lines(work: Iterable[T], total: int | None, label: str, step: int) -> Iterator[T]:
    started = said = time.monotonic()
    for done, item in enumerate(work, start=1):
        yield item
        now = time.monotonic()
        if now - said >= _QUIET_SECONDS:
            said, rate = now, done / (now - started)
            line = f"{label}: {done * step}, {rate * step:.1f}/s"
            if total is not None:
                count = f"{done * step}/{total * step} ({done / total:.0%})"
                line = f"{label}: {count}, {rate * step:.1f}/s, {(total - done) / rate:.0f} s left"
            _print(line)


@contextmanager
def watch(
    label: str, share: Callable[[], float | None], *, every: float = _QUIET_SECONDS, quiet: bool = False
) -> Iterator[None]:
    """Print elapsed time and progress on standard error every ten seconds while the block runs.

    Args:
        label: name of the work.
        share: returns the finished share, from 0 to 1, or `None` if unknown.
        every: seconds between two lines.
        quiet: whether to print nothing.
    """
    if quiet:
        yield
        return
    over, started = Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(every):
            done, seconds = share(), time.monotonic() - started
            _print(f"{label}: {seconds:.0f} s" if done is None else f"{label}: {done:.0%} done, {seconds:.0f} s")

    speaker = Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - showing progress is its job
