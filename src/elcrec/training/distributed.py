"""Training on several processes, one a device: `torchrun --nproc-per-node N -m elcrec train` is the same command.

Every rank encodes its share of a step's users; the states are gathered with their gradients, so that contrastive
negatives, pooled means and centres are those of the whole step and each rank computes the same contrastive losses.
Gradients are averaged; so are the ranks' shares of L_next.

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

from elcrec.model.grouping import Rows


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is."""

    index: int
    count: int

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.index == 0


ALONE = Ranks(0, 1)


def local_rank() -> int:
    """Place of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


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


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How the states of all ranks' rows come together.

    Attributes:
        rows: all ranks' rows: inputs, first views, second views.
        source_M: place of each item among the gathered states.
        longest: most items that a rank encodes.
    """

    rows: Rows
    source_M: Tensor
    longest: int

    def gather(self, states_MD: Tensor) -> Tensor:
        """Return the states of all ranks' items in the order of `rows`; its gradient reaches every rank's states."""
        padded = torch.nn.functional.pad(states_MD, (0, 0, 0, self.longest - len(states_MD)))
        return _Gather.apply(padded).index_select(0, self.source_M)  # type: ignore[no-untyped-call, no-any-return]


class _Gather(torch.autograd.Function):
    """All ranks' tensors one after another; backward sums the gradients that all ranks have for a rank's own part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004 - PyTorch gives it
        """Gather."""
        every = own.new_empty(dist.get_world_size() * len(own), *own.shape[1:])
        dist.all_gather_into_tensor(every, own.contiguous())
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - PyTorch gives it
        """Sum over ranks, keep the own part."""
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over ranks, in one message."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def copy_from_leader(module: nn.Module) -> None:
    """Give every rank the leader's parameters and buffers."""
    for tensor in module.state_dict().values():
        dist.broadcast(tensor, src=0)


def mean_over_ranks(values: Tensor) -> Tensor:
    """Average a tensor over ranks."""
    dist.all_reduce(values)
    return values / dist.get_world_size()


def gather_integers(own: Tensor) -> Tensor:
    """Return all ranks' numbers, however many each has, one rank after another, int64."""
    own = own.long()
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(own)], device=own.device))
    longest = max(int(size) for size in sizes)
    parts = [own.new_empty(longest) for _ in sizes]
    dist.all_gather(parts, torch.nn.functional.pad(own, (0, longest - len(own))))
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
