"""What is measured, one job a process: `python -m benchmarks.task` runs it, `benchmarks.runner` asks for it."""

from typing import Any, Literal

import msgspec

Engine = Literal["ours", "textbook"]
Objective = Literal["elcrec", "iclrec", "sasrec"]
Kind = Literal["train", "rank", "profile", "rates"]
Numbers = dict[str, float]
Result = dict[str, Any]
"""What a job prints: numbers by name; a profile also holds tables."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        kind: `train`: steps of an epoch; `rank`: full ranking of the test users; `profile`: where our step's time goes;
            `rates`: what the machine's matrix product reaches.
        engine: whose code runs.
        objective: what is trained.
        sequences: folder of the sequences stage.
        params: parameters file.
        presets: laid over it.
        overrides: laid over those, as `train.device=cpu`.
        threads: of every library.
        steps: at most so many steps of the epoch that counts, or blocks of 256 users to rank; `None` for all.
        validate: whether training ends an epoch with the ranking of all validation users, as real training does.
        workers: of the textbook's data loader.
    """

    kind: Kind
    engine: Engine = "ours"
    objective: Objective = "elcrec"
    sequences: str = ""
    params: str = "params.yaml"
    presets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    threads: int = 1
    steps: int | None = None
    validate: bool = False
    workers: int = 0
