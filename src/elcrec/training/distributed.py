"""Training in several processes, one per device: `torchrun --nproc-per-node N -m elcrec train`.

Every rank encodes its share of a step's users. The states are gathered with their gradients, so contrastive negatives,
pooled means and centres are those of the whole step, and each rank computes the same contrastive losses. Gradients are
averaged, and so are the ranks' shares of L_next.

Axes: `M` items of all ranks, `D` hidden size.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and the number of processes; only the leader writes and reports."""

    index: int
    count: int

    @property
    def leads(self) -> bool:
        return self.index == 0


ALONE = Ranks(0, 1)


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did: gloo on CPUs, NCCL on GPUs."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def gather_states(own_MD: Tensor) -> Tensor:
    """Return the states of all ranks, the same number from each, one rank after another.

    The backward pass sums the gradients that all ranks have for a rank's own part.
    """
    gathered: Tensor = _Gather.apply(own_MD)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004 - PyTorch gives it
        return _all_gathered(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - PyTorch gives it
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over ranks, in one message."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    means = mean_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(means, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


def copy_from_leader(module: nn.Module) -> None:
    """Give every rank the leader's parameters and buffers."""
    for tensor in module.state_dict().values():
        dist.broadcast(tensor, src=0)


def mean_over_ranks(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values / dist.get_world_size()


def gather_integers(own: Tensor) -> Tensor:
    """Return all ranks' numbers, however many each has, one rank after another, int64."""
    own = own.long()
    counts = _all_gathered(own.new_tensor([len(own)])).tolist()
    padded = torch.nn.functional.pad(own, (0, max(counts) - len(own)))
    parts = _all_gathered(padded).chunk(len(counts))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _all_gathered(own: Tensor) -> Tensor:
    every = own.new_empty(dist.get_world_size() * len(own), *own.shape[1:])
    dist.all_gather_into_tensor(every, own.contiguous())
    return every
