"""Losses of the first ten steps of each objective; run as a module, it rewrites losses.json.

Two epochs of five steps on the rings, dropout on, so that the weights' first values, the drawn batches, negatives and
views, dropout, k-means, Adam and the seeds of an epoch all leave their mark.
"""

import json
import tempfile
from pathlib import Path

import torch

from elcrec.config import NextItemConfig, TrainConfig
from elcrec.process import set_up_process
from elcrec.training.loop import Run
from tests.unit.training.helpers import ring_data, tiny_config

FILE = Path(__file__).with_suffix(".json")
DIGITS = 6
"""Significant ones that are kept: fewer than float32 has, so that another machine's file differs little or not."""

RATE = 0.01
"""Ten times the default, so that ten steps go far enough for each to tell on the next."""

CONFIGS = {
    "elcrec": tiny_config(objective="elcrec", learning_rate=RATE),
    "iclrec": tiny_config(objective="iclrec", learning_rate=RATE),
    "sasrec": tiny_config(objective="sasrec", learning_rate=RATE, next_item=NextItemConfig(loss="softmax")),
    "elcrec2": tiny_config(
        objective="elcrec2", learning_rate=RATE, head="cosine", next_item=NextItemConfig(loss="softmax")
    ),
}

Trajectory = list[dict[str, float]]


class _Recorded(Run):
    """A run that keeps the losses of every step."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(ring_data(users=160), config, torch.device("cpu"))
        self.taken: Trajectory = []

    def take(self, step: object) -> dict[str, torch.Tensor]:
        losses = super().take(step)
        self.taken.append({name: loss.item() for name, loss in losses.items()})
        return losses


def trajectory(config: TrainConfig) -> Trajectory:
    """Losses of each of ten steps."""
    run = _Recorded(config)
    with tempfile.TemporaryDirectory() as nothing:
        run.begin(Path(nothing))
    for epoch in (1, 2):
        run.train_epoch(epoch)
    return run.taken


def write() -> None:
    """Write what the present code computes."""
    set_up_process()
    torch.set_num_threads(1)
    runs = [f'"{name}": [\n{_lines(trajectory(config))}\n]' for name, config in CONFIGS.items()]
    FILE.write_text("{\n" + ",\n".join(runs) + "\n}\n", encoding="utf-8")


def _lines(steps: Trajectory) -> str:
    """JSON with a line a step, for a difference that can be read."""
    rounded = [{name: float(f"{loss:.{DIGITS}g}") for name, loss in step.items()} for step in steps]
    return ",\n".join(json.dumps(step) for step in rounded)


if __name__ == "__main__":
    write()
