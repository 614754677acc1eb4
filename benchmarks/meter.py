"""The cost of work in a process: CPU seconds, wall seconds, memory, measured in the same way for both engines."""

import contextlib
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.profiler import record_function

from benchmarks.machine import peak_mib_of

T = TypeVar("T")

DATA_RANGE = "benchmarks: data"
"""Name of the profiler's range around the drawing of each batch."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of work: CPU time (user and system, all threads and finished workers), and wall time."""

    cpu: float
    wall: float

    def __sub__(self, earlier: "Cost") -> "Cost":
        return Cost(cpu=self.cpu - earlier.cpu, wall=self.wall - earlier.wall)


def now(device: torch.device) -> Cost:
    """Return the cost of the process so far, after waiting for the GPU, so that its work counts."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Cost(cpu=sum(usage.ru_utime + usage.ru_stime for usage in usages), wall=time.perf_counter())


def peak_mib() -> float:
    """Return the peak resident memory of this process in MiB."""
    with contextlib.suppress(OSError):
        return peak_mib_of("self")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over (a part of) the steps.

    Attributes:
        start: cost before the first batch is drawn.
        end: cost after the last step.
        steps: number of steps.
        peak_mib: the process's peak memory at the end.
    """

    start: Cost
    end: Cost
    steps: int
    peak_mib: float

    @property
    def cost(self) -> Cost:
        """Cost of the steps."""
        return self.end - self.start


@dataclass(kw_only=True)
class Clock:
    """Measures the batches of each epoch, and ends an epoch early if it is limited.

    Attributes:
        device: device of the steps.
        limits: largest number of steps of each epoch, `None` for all.
        contexts: contexts in which to run epochs, such as a profiler, by index of the epoch.
        epochs: the measured epochs.
        whole: number of steps of an unlimited epoch, set by the engine.
    """

    device: torch.device
    limits: tuple[int | None, ...]
    contexts: Mapping[int, AbstractContextManager[Any, Any]] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    whole: int = 0

    @property
    def limit(self) -> int | None:
        """Largest number of steps of the present or next epoch."""
        return self.limits[min(len(self.epochs), len(self.limits) - 1)]

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of one epoch; a step ends when the next batch is requested."""
        limit = self.whole if self.limit is None else min(self.limit, self.whole)
        with self.contexts.get(len(self.epochs), nullcontext()):
            start, source = now(self.device), iter(batches)
            for _ in range(limit):
                with record_function(DATA_RANGE):
                    batch = next(source)
                yield batch
            end = now(self.device)
        self.epochs.append(Epoch(start=start, end=end, steps=limit, peak_mib=peak_mib()))
