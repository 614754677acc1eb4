"""Stage train: sequences in, a model folder out."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from elcrec.artifacts import atomic_dir, code_revision, read_json
from elcrec.config import TrainConfig
from elcrec.data.dataset import SequenceData, load_sequences
from elcrec.evaluation.pages import INSTALL, can_write_pages
from elcrec.evaluation.training_page import write_training_page
from elcrec.model.io import CONFIG, load_model, save_model
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.catalogue import load_catalogue
from elcrec.training.checkpoint import discard_checkpoint
from elcrec.training.distributed import Ranks, process_group
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
    """Train a model and write `model.safetensors`, `config.json`, `history.csv` and the page `training.html`.

    Under torchrun every process trains its share of each step, and the leader alone writes. Without the extra `report`
    there is no page, and a line in the log says so.

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
            _write_page(scratch, fitted, data, _machine(device, ranks))
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


def _machine(device: torch.device, ranks: Ranks) -> str:
    """Return what trained, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, {ranks.count} {'process' if ranks.count == 1 else 'processes'}"


def _write_page(folder: Path, fitted: Fitted, data: SequenceData, trained_on: str) -> None:
    if not can_write_pages():
        logger.warning("no training.html: the page needs the extra report; %s", INSTALL)
        return
    history = pd.DataFrame(fitted.progress.history, columns=HISTORY_COLUMNS).astype(float).astype({"epoch": int})
    config = read_json(folder / CONFIG)
    write_training_page(folder / "training.html", config=config, history=history, data=data, trained_on=trained_on)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row an epoch; what an objective or an epoch does not have stays empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
