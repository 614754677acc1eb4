"""One measurement in a separate process: `python -m benchmarks.task JOB`, a job as JSON; prints a JSON object."""

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.profiler import profile

from benchmarks import anatomy, ours, textbook
from benchmarks.jobs import Job, Kind, Numbers, Result
from benchmarks.meter import Clock, Cost, now, peak_mib
from elcrec.config import TrainConfig, load_config
from elcrec.data.dataset import SequenceData, load_sequences
from elcrec.data.ragged import Ragged
from elcrec.ops.device import choose_device
from elcrec.process import set_up_process

_WARM_STEPS = 5
"""On a GPU a step is recorded among them."""
_PROFILED_STEPS = 20
_BLOCK_USERS = 256


def main(argument: str) -> int:
    """Run the job and print its cost."""
    set_up_process()
    sys.stdout.buffer.write(msgspec.json.encode(measure(msgspec.json.decode(argument, type=Job))) + b"\n")
    return 0


def measure(job: Job) -> Result:
    """Run the job in this process.

    Raises:
        UserError: the configuration is invalid, or cannot be trained on the data.
    """
    torch.set_num_threads(job.threads)
    if job.kind == "train":
        # The first optimiser of a process imports half of PyTorch, which must not count for either engine.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    imported = peak_mib()
    presets = [Path(preset) for preset in job.presets]
    overrides = [*job.overrides, f"train.objective={job.objective}"] if job.engine == "ours" else job.overrides
    config = load_config(Path(job.params), presets=presets, overrides=overrides).train
    # Our processes run without oneDNN (elcrec.process); the textbook uses PyTorch's defaults. TF32 is not changed:
    # without an Intel GPU, PyTorch warns about any value.
    with torch.backends.mkldnn.flags(enabled=job.engine == "textbook", allow_tf32=None):
        result = _KINDS[job.kind](job, config)
    result |= {"imported_mib": imported, "total_mib": peak_mib()}
    if torch.cuda.is_available() and choose_device(config.device).type == "cuda":
        result["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def _train(job: Job, config: TrainConfig) -> Numbers:
    """Run a few steps to warm up, then a measured epoch; on a GPU one more under the profiler."""
    data, device = load_sequences(Path(job.sequences)), choose_device(config.device)
    data = data if job.validate else ours.with_one_validation_target(data)
    kernels = anatomy.profiler(device)
    limits = (_WARM_STEPS, job.steps) + ((_PROFILED_STEPS,) if device.type == "cuda" else ())
    clock = Clock(device=device, limits=limits, contexts={2: kernels})
    begun = now(device)
    _ENGINES[job.engine](data, config, clock, job)
    return _costs(clock, begun) | (_busy(clock, kernels) if len(limits) > 2 else {})  # noqa: PLR2004 - see above


def _costs(clock: Clock, begun: Cost) -> Numbers:
    warm, counted = clock.epochs[:2]
    between, before = counted.start - warm.end, warm.start - begun
    return {
        "steps": counted.steps,
        "whole": clock.whole,
        "steps_cpu": counted.cost.cpu,
        "steps_wall": counted.cost.wall,
        "between_cpu": between.cpu,
        "between_wall": between.wall,
        "before_cpu": before.cpu,
        "before_wall": before.wall,
        "first_wall": warm.cost.wall,
        "steps_mib": counted.peak_mib,
    }


def _busy(clock: Clock, kernels: profile) -> Numbers:
    """Return the time in kernels, from the profiled epoch, relative to the wall time of a step without profiler."""
    counted, profiled = clock.epochs[1:3]
    seconds = anatomy.kernel_seconds(kernels) / max(profiled.steps, 1)
    return {"gpu_busy": seconds / (counted.cost.wall / counted.steps)}


def _train_ours(data: SequenceData, config: TrainConfig, clock: Clock, _: Job) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ours.train(data, config, clock, Path(scratch))


def _train_textbook(data: SequenceData, config: TrainConfig, clock: Clock, job: Job) -> None:
    rows = [row for row in _lists(data.training()) if len(row) > 1]
    model, _ = textbook.train(rows, data.num_items, config, clock, objective=job.objective, workers=job.workers)
    if job.validate:
        textbook.rank(model, _lists(data.evaluation("valid").histories))


def _rank(job: Job, config: TrainConfig) -> Numbers:
    data, device = load_sequences(Path(job.sequences)), choose_device(config.device)
    asked = data.evaluation("test")
    part = asked if job.steps is None else asked.slice(0, job.steps * _BLOCK_USERS)
    if job.engine == "ours":
        model = ours.new_model(data, config, device)
        ours.rank(model, asked.slice(0, _BLOCK_USERS))
        work: Callable[[], Any] = lambda: ours.rank(model, part)  # noqa: E731 - one of two
    else:
        plain = textbook.TextbookModel(config, data.num_items).to(device)
        histories = _lists(part.histories)
        textbook.rank(plain, histories[:_BLOCK_USERS])
        work = lambda: textbook.ranks_of(textbook.rank(plain, histories), part.target_items)  # noqa: E731 - as above
    start = now(device)
    work()
    cost = now(device) - start
    return {"users": len(part.users), "whole": len(asked.users), "cpu": cost.cpu, "wall": cost.wall}


def _profile(job: Job, config: TrainConfig) -> Result:
    data, device = load_sequences(Path(job.sequences)), choose_device(config.device)
    steps = _PROFILED_STEPS if job.steps is None else min(job.steps, _PROFILED_STEPS)
    profiler, counter = anatomy.profiler(device), anatomy.flop_counter()
    limits = (_WARM_STEPS, steps, steps, steps)
    clock = Clock(device=device, limits=limits, contexts={2: profiler, 3: counter})
    _train_ours(ours.with_one_validation_target(data), config, clock, job)
    plain, profiled, counted = clock.epochs[1:]
    return {
        "steps": plain.steps,
        "step_cpu": plain.cost.cpu / plain.steps,
        "step_wall": plain.cost.wall / plain.steps,
        "profiled_step_cpu": profiled.cost.cpu / profiled.steps,
        "step_flops": counter.get_total_flops() / counted.steps,
        **anatomy.shares(profiler, profiled.cost.wall),
    }


def _rates(_: Job, config: TrainConfig) -> Result:
    device = choose_device(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, **anatomy.product_rates(device)}


def _lists(rows: Ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(rows.values, rows.offsets[1:-1])]


_ENGINES: Mapping[str, Callable[[SequenceData, TrainConfig, Clock, Job], None]] = {
    "ours": _train_ours,
    "textbook": _train_textbook,
}
_KINDS: Mapping[Kind, Callable[[Job, TrainConfig], Result]] = {
    "train": _train,
    "rank": _rank,
    "profile": _profile,
    "rates": _rates,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
