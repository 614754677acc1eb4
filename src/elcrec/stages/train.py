"""Stage train: sequences in, a model folder out."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elcrec.artifacts import atomic_dir, code_revision
from elcrec.config import TrainConfig
from elcrec.data.dataset import SequenceData, load_sequences
from elcrec.model.io import load_model, save_model
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.catalogue import load_catalogue
from elcrec.training.checkpoint import discard_checkpoint
from elcrec.training.distributed import process_group
from elcrec.training.loop import Fitted, choose_device, fit
from elcrec.training.warm_start import WarmStart

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


def train(
    config: TrainConfig, sequences: Path, out: Path, *, checkpoint: Path, warm_start: Path | None = None
) -> dict[str, Any]:
    """Train a model and write `model.safetensors`, `config.json` and `history.csv`.

    Under torchrun every process trains its share of each step, and the leader alone writes.

    Args:
        config: model and optimisation.
        sequences: output of the sequences stage.
        out: the model folder to write.
        checkpoint: folder for the state of an unfinished run; emptied at the end.
        warm_start: bundle of a pushed model whose weights training starts from.

    Returns:
        Epochs and validation metrics; nothing on a process that does not lead.

    Raises:
        UserError: the data cannot be trained on, the bundle is damaged or has another encoder, or the output cannot
            be written.
    """
    device = choose_device(config.device)
    with process_group(device) as ranks:
        data = load_sequences(sequences)
        start = _read_start(warm_start, sequences) if warm_start else None
        if not ranks.leads:
            fit(data, config, checkpoint, ranks, start)
            return {}
        with atomic_dir(out) as scratch:
            fitted = fit(data, config, checkpoint, ranks, start)
            _write(fitted, data, scratch, warm_start=start.digest if start else None)
        discard_checkpoint(checkpoint)
    return {"epochs": fitted.progress.epoch, "best_epoch": fitted.progress.best_epoch} | {
        f"valid_{name}": value for name, value in fitted.valid.items()
    }


def _read_start(bundle: Path, sequences: Path) -> WarmStart:
    digest = verify_bundle(bundle).digest
    ours, theirs = (load_catalogue(folder / "items.parquet") for folder in (sequences, bundle))
    items = theirs.indices(ours.item_ids)
    logger.info("warm start from %s: %d of %d items known", digest[:12], (items > 0).sum(), len(items))
    return WarmStart(model=load_model(bundle), items=items, digest=digest)


def _write(fitted: Fitted, data: SequenceData, folder: Path, *, warm_start: str | None) -> None:
    progress = fitted.progress
    seconds = sum(row["seconds"] for row in progress.history)
    facts: dict[str, Any] = {
        "sequences_md5": data.md5,
        "git_revision": code_revision(),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "valid": fitted.valid,
        "seconds": round(seconds, 1),
    }
    if warm_start:
        facts["warm_start"] = warm_start
    save_model(fitted.model, folder, **facts)
    write_history(folder / "history.csv", progress.history)
    logger.info("trained in %.0f s", seconds)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row an epoch; what an objective or an epoch does not have stays empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
