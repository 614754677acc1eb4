"""How a model was trained, for display in a registry: its parameters, and a row of figures per epoch."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elcrec.artifacts import read_json
from elcrec.errors import UserError
from elcrec.model.io import CONFIG
from elcrec.serving.ports import TrainingRecord

HISTORY = "history.csv"


def read_training(model: Path, sequences: Path) -> TrainingRecord:
    """Read the record from the outputs of train and sequences; imported weights have no epochs.

    Raises:
        UserError: the history of the training cannot be read.
    """
    settings = {"train": read_json(model / CONFIG).get("train", {}), "sequences": read_json(sequences / "split.json")}
    path = model / HISTORY
    epochs = list(_epochs(path)) if path.is_file() else []
    return TrainingRecord(parameters=dict(_flat(settings)), epochs=epochs)


def _flat(node: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", str(value)


def _epochs(path: Path) -> Iterator[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                yield {name: float(value) for name, value in row.items() if value}
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, ValueError) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the train stage again") from error
