"""Steps on a GPU, recorded once as CUDA graphs and replayed.

A step of a small model is some hundreds of operations of a few microseconds each. Launched one by one from Python they
take several times as long as they run; replayed they are one launch.
"""

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Work = Callable[[], dict[str, Tensor]]

_WARM_STEPS = 3
"""Times that work is launched one by one before it is recorded: what an operation sets up the first time is no part of
the record."""


@dataclass(kw_only=True)
class _Record:
    """What is known of work of one name: how often it ran as it is, then its graph, and where that leaves numbers."""

    runs: int = 0
    recorded: tuple[torch.cuda.CUDAGraph, list[str], Tensor] | None = None


class Recorder:
    """Does the same work again and again: at first as it is, then as a graph.

    Work of one name must read and write the same memory each time and ask the device for no value. What it returns are
    numbers by name. Without CUDA everything runs as it is.
    """

    def __init__(self, device: torch.device) -> None:
        """Record nothing yet."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._may_record = self._stream is not None
        self._records: dict[Hashable, _Record] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Queue what is inside behind what the device has to do, on the stream that work is recorded from."""
        if self._stream is None:
            yield
            return
        outer = torch.cuda.current_stream()
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            yield
        outer.wait_stream(self._stream)

    def forget(self) -> None:
        """Let go of all records: work of the same name has other shapes now."""
        self._records.clear()

    def run(self, name: Hashable, work: Work) -> dict[str, Tensor]:
        """Do the work once; return its numbers, which later work leaves alone."""
        record = self._records.setdefault(name, _Record())
        if self._may_record and record.recorded is None and record.runs >= _WARM_STEPS:
            self._record(record, work)
        if record.recorded is None:
            record.runs += 1
            return work()
        graph, names, numbers = record.recorded
        graph.replay()
        return dict(zip(names, numbers.clone().unbind(), strict=True))

    def _record(self, record: _Record, work: Work) -> None:
        graph, drawn = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                results = work()
                numbers = torch.stack(list(results.values()))
        except RuntimeError as error:
            logger.warning("steps are launched one by one, because recording failed: %s", error)
            self._may_record = False
            self.forget()
            _let_go_of_generator(drawn)
        else:
            record.recorded = graph, list(results), numbers


def _let_go_of_generator(state: Tensor) -> None:
    """Give this device's own generator, which a recording that failed still holds, memory of its own again."""
    generator = torch.Generator("cuda")
    generator.set_state(state)
    torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(generator.graphsafe_get_state())
