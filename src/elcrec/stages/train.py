"""Stage train: sequences in, a model folder out."""

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elcrec.artifacts import atomic_dir, code_revision
from elcrec.config import TrainConfig
from elcrec.data.dataset import load_sequences
from elcrec.model.io import save_model
from elcrec.training.checkpoint import discard_checkpoint
from elcrec.training.loop import fit

logger = logging.getLogger(__name__)

HISTORY_COLUMNS = (
    "epoch",
    "loss",
    "next_item",
    "sequence",
    "intent",
    "cluster",
    "valid_ndcg@20",
    "valid_hr@20",
    "effective_intents",
    "seconds",
)


def train(config: TrainConfig, sequences: Path, out: Path, *, checkpoint: Path) -> dict[str, Any]:
    """Train a model and write `model.safetensors`, `config.json` and `history.csv`.

    Args:
        config: model and optimisation.
        sequences: output of the sequences stage.
        out: the model folder to write.
        checkpoint: folder for the state of an unfinished run; emptied at the end.

    Raises:
        UserError: the data cannot be trained on, or the output cannot be written.
    """
    started = time.perf_counter()
    data = load_sequences(sequences)
    with atomic_dir(out) as scratch:
        fitted = fit(data, config, checkpoint)
        progress = fitted.progress
        facts = {
            "sequences_md5": data.md5,
            "git_revision": code_revision(),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "valid": fitted.valid,
            "seconds": round(sum(row["seconds"] for row in progress.history), 1),
        }
        save_model(fitted.model, scratch, **facts)
        write_history(scratch / "history.csv", progress.history)
    discard_checkpoint(checkpoint)
    logger.info("trained in %.0f s", time.perf_counter() - started)
    return {"epochs": progress.epoch, "best_epoch": progress.best_epoch} | {
        f"valid_{name}": value for name, value in fitted.valid.items()
    }


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row an epoch; what an objective or an epoch does not have stays empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
