"""Copies to an accelerator that the host does not wait for."""

import torch
from torch import Tensor


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the host's memory; a copy to a GPU is queued behind the work that is already there.

    A GPU copies ordinary memory only while the host holds still. Pinned memory is free of that, and PyTorch keeps what
    was pinned until the copy is done, then for the next one.
    """
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)
