"""Compiled losses of full steps: on a GPU, most of a step's operations are fused into larger ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from elcrec.errors import UserError
from elcrec.training.step import Step

Losses = Callable[[Step], dict[str, Tensor]]


def compiled(losses: Losses, batch_size: int) -> Losses:
    """Compile the losses of steps of `batch_size` sequences; smaller steps are not compiled.

    The first such step raises a `UserError` on a machine that cannot compile.
    """
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 - takes seconds, needed only for compilation

    whole = torch.compile(losses, dynamic=False)

    def of(step: Step) -> dict[str, Tensor]:
        if step.num_sequences < batch_size:
            return losses(step)
        try:
            return whole(step)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            fix = "install a C compiler such as gcc, or set train.compile to false"
            raise UserError(f"torch.compile failed: {reason}", fix=fix) from error

    return of
