"""Losses of full steps, compiled: on a GPU most of a step's operations become parts of larger ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from elcrec.errors import UserError
from elcrec.model.elcrec import TrainingBatch

Losses = Callable[[TrainingBatch], dict[str, Tensor]]


def compiled(losses: Losses, batch_size: int) -> Losses:
    """Compile the losses of steps of `batch_size` sequences; an epoch's last step, if smaller, stays as it is.

    Raises:
        UserError: of the returned function, at its first such step: this machine cannot compile.
    """
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 - seconds that only a compiler needs

    whole = torch.compile(losses, dynamic=False)

    def of(batch: TrainingBatch) -> dict[str, Tensor]:
        if batch.num_sequences < batch_size:
            return losses(batch)
        try:
            return whole(batch)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            fix = "install a C compiler such as gcc, or set train.compile to false"
            raise UserError(f"torch.compile failed: {reason}", fix=fix) from error

    return of
