"""Jobs, one per process: `python -m benchmarks.task` runs a job, `benchmarks.runner` starts it."""

from typing import Any, Literal

import msgspec

Engine = Literal["ours", "textbook"]
Objective = Literal["elcrec", "iclrec", "sasrec"]
Kind = Literal["train", "rank", "profile", "rates"]
Numbers = dict[str, float]
Result = dict[str, Any]
"""The output of a job: numbers by name; a profile also has tables."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        kind: `train`: steps of an epoch; `rank`: full ranking of the test users; `profile`: profile of our step;
            `rates`: rates of the machine's matrix products.
        engine: the code to run, ours or the textbook's.
        objective: the objective to train.
        sequences: folder of the sequences stage.
        params: parameters file.
        presets: presets applied to it.
        overrides: further values, such as `train.device=cpu`.
        threads: number of threads of every library.
        steps: largest number of measured steps, or of blocks of 256 users to rank; `None` for all.
        validate: whether training ends an epoch with the ranking of all validation users, as real training does.
        workers: number of workers of the textbook's data loader.
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
