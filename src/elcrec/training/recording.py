"""Steps on a GPU, recorded once as CUDA graphs and replayed.

A step of a small model consists of hundreds of operations of a few microseconds each. Launching them one by one from
Python takes several times as long as running them; a replay is one launch.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Work = Callable[[], dict[str, Tensor]]

# The first runs, in which operations set up their state, must not be part of the record.
_RUNS_BEFORE_RECORDING = 3


class Recorder:
    """Runs the same work repeatedly: first directly, then as a CUDA graph.

    Work of one name must read and write the same memory each time, and must not make the host wait for a value. It
    returns numbers by name. Without CUDA everything runs directly.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._may_record = self._stream is not None
        self._runs: Counter[Hashable] = Counter()
        # A graph, and the names and the memory of its resulting numbers.
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[str], Tensor]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Queue the work of the block after the device's present work, on the stream from which work is recorded."""
        if self._stream is None:
            yield
            return
        outer = torch.cuda.current_stream()
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            yield
        outer.wait_stream(self._stream)

    def forget(self) -> None:
        """Drop all records, because work of the same name has other shapes now."""
        self._runs.clear()
        self._recorded.clear()

    def run(self, name: Hashable, work: Work) -> dict[str, Tensor]:
        """Run the work once; return its numbers in memory that later work does not overwrite."""
        if self._may_record and self._runs[name] == _RUNS_BEFORE_RECORDING and name not in self._recorded:
            self._record(name, work)
        if name not in self._recorded:
            self._runs[name] += 1
            return work()
        graph, names, numbers = self._recorded[name]
        graph.replay()
        return dict(zip(names, numbers.clone().unbind(), strict=True))

    def _record(self, name: Hashable, work: Work) -> None:
        graph, drawn = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                results = work()
                numbers = torch.stack(list(results.values()))
        except RuntimeError as error:
            logger.warning("steps are launched one by one, because recording failed: %s", error)
            self._may_record = False
            self.forget()
            # The failed recording still holds the state of the device's own generator, so the generator gets new
            # memory.
            generator, own = torch.Generator("cuda"), torch.cuda.default_generators[torch.cuda.current_device()]
            generator.set_state(drawn)
            own.graphsafe_set_state(generator.graphsafe_get_state())
        else:
            self._recorded[name] = graph, list(results), numbers
