"""Profile of a step: time by kind of operator, floating point operations, and the machine's own rate."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.jobs import Numbers
from benchmarks.meter import DATA_RANGE, now

OUTSIDE = "Python between operators"
_DATA = "data (drawing the batch)"
_OTHER = "other operators"
_GROUPS = {
    "matrix products": r"mm(backward\d)?$|bmm|linear|matmul|scaled_dot_product|::dot$|::mv$",
    "dropout and random numbers": r"bernoulli|dropout|rand|uniform|normal_",
    "embedding": r"embedding|index_select|index_add|indexselect",
    "normalisation and activation": r"norm|gelu|softmax|softplus|sigmoid",
    "optimiser": r"adam|optimizer|zero_grad",
}
_MEMORY, _MOVES_MEMORY = "filling and copying memory", r"fill_?$|copy_?$|::cat$|zero_?$|clone|contiguous|pad"
_TOP_OPERATORS = 15
_SQUARE = 2048
_STEP_SHAPE = (2300, 64, 256)
_RATE_SECONDS = 0.5


def profiler(device: torch.device) -> profile:
    """Return a profiler of the CPU, and of the GPU if there is one."""
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *gpu], acc_events=True)


def flop_counter() -> FlopCounterMode:
    """Return a counter of the floating point operations of matrix products."""
    return FlopCounterMode(display=False)


def kernel_seconds(profiled: profile) -> float:
    """Return the seconds that the GPU spent in kernels and copies."""
    kernels = [
        e for e in _events(profiled) if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)
    ]
    return float(sum(event.time_range.elapsed_us() for event in kernels)) / 1e6


def shares(profiled: profile, seconds: float) -> dict[str, Any]:
    """Return the shares of a profiled epoch by kind of operator, and of the operators that take most time.

    Args:
        profiled: the finished profile; its times are wall times.
        seconds: wall time of the profiled steps; time outside operators is counted as Python's.
    """
    groups: defaultdict[str, float] = defaultdict(float)
    operators: defaultdict[str, float] = defaultdict(float)
    for event in _events(profiled):
        if event.device_type == DeviceType.CPU:
            share = event.self_cpu_time_total / 1e6 / seconds
            groups[group_of(_ancestry(event))] += share
            operators[event.name] += share
    groups[OUTSIDE] = max(0.0, 1 - sum(groups.values()))
    return {"groups": _largest(groups), "operators": _largest(operators, _TOP_OPERATORS)}


def _largest(shares_by_name: dict[str, float], most: int | None = None) -> dict[str, float]:
    return dict(sorted(shares_by_name.items(), key=lambda pair: -pair[1])[:most])


def _events(profiled: profile) -> list[Any]:
    return list(profiled.events() or [])  # type: ignore[no-untyped-call]


def group_of(names: Sequence[str]) -> str:
    """Return the kind of an operator: its own, else that of the nearest caller with a kind.

    Operators that only move memory count with their callers, if these have a kind.

    Args:
        names: the operator and its callers, innermost first.
    """
    if DATA_RANGE in names:
        return _DATA
    kinds = (group for name in names for group, pattern in _GROUPS.items() if re.search(pattern, name, re.IGNORECASE))
    moves = any(re.search(_MOVES_MEMORY, name, re.IGNORECASE) for name in names)
    return next(kinds, _MEMORY if moves else _OTHER)


def _ancestry(event: Any) -> list[str]:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return names


def product_rates(device: torch.device) -> Numbers:
    """Return rates of fp32 matrix products in GFLOP per second (per CPU second on a CPU): large, and as in a step."""
    return {
        "square_gflops": _rate(device, _SQUARE, _SQUARE, _SQUARE),
        "step_shape_gflops": _rate(device, *_STEP_SHAPE),
    }


def _rate(device: torch.device, rows: int, inner: int, columns: int) -> float:
    left, right = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    out = left @ right
    seconds, products = _repeat(lambda: torch.mm(left, right, out=out), device)
    return 2 * rows * inner * columns * products / seconds / 1e9


def _repeat(work: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Repeat `work` for long enough; return the seconds and the number of repetitions."""
    times = 1
    while True:
        start = now(device)
        for _ in range(times):
            work()
        cost = now(device) - start
        seconds = cost.wall if device.type == "cuda" else cost.cpu
        if seconds > _RATE_SECONDS:
            return seconds, times
        times *= 2
