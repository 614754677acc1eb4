"""The folders of every stage on the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

ARGUMENTS: Mapping[str, Sequence[str]] = {
    "fetch": ("--out", "{disk}/raw"),
    "validate": ("--raw", "{work}/raw", "--out", "{disk}/validated", "--accepted", "{disk}/accepted"),
    "sequences": ("--interactions", "{work}/validated", "--out", "{disk}/sequences"),
    "train": ("--sequences", "{work}/sequences", "--out", "{disk}/model", "--checkpoint", "{disk}/checkpoint"),
    "evaluate": (
        *("--model", "{work}/model", "--sequences", "{work}/sequences", "--truth", "{work}/raw"),
        *("--baseline", "none", "--out", "{disk}/evaluation"),
    ),
    "push": (
        *("--model", "{work}/model", "--sequences", "{work}/sequences", "--evaluation", "{work}/evaluation"),
        *("--out", "{disk}/push", "--store", "{disk}/store"),
    ),
}
"""The arguments of each stage: inputs in one folder, everything that it writes in another, such as a disk."""


def arguments_of(stage: str, work: Path, disk: Path) -> list[str]:
    """Return the arguments of a stage that reads below `work` and writes below `disk`."""
    return [word.format(work=work, disk=disk) for word in ARGUMENTS[stage]]
