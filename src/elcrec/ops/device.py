"""Choosing a device, and copying to it."""

import os

import torch
from torch import Tensor

from elcrec.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device of a configuration; `auto` is CUDA if there is a GPU.

    Raises:
        UserError: CUDA is configured, but there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but PyTorch finds no GPU", fix="set it to auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


def local_rank() -> int:
    """Return the rank of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the host's memory; a copy to a GPU is queued after its present work."""
    # A copy from ordinary memory makes the host wait. PyTorch keeps pinned memory until the copy is done.
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
