"""Stage train: train a model on sequences and write the model folder."""

import csv
import logging
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from elcrec.artifacts import MEASURED, SCHEMA_VERSION, code_revision, read_json, write_json
from elcrec.config import TrainConfig
from elcrec.custody import stage_output, verify
from elcrec.data.dataset import (
    EvaluationSet,
    SequenceData,
    load_sequences,
    require_served_window,
)
from elcrec.evaluation.sampling import asked_users
from elcrec.model.io import CONFIG, load_model, save_model
from elcrec.ops.device import choose_device
from elcrec.pages.render import INSTALL, can_write_pages
from elcrec.pages.training import write_training_page
from elcrec.serving.bundle import verify_bundle
from elcrec.serving.catalogue import load_catalogue
from elcrec.training.checkpoint import discard_checkpoint
from elcrec.training.distributed import Ranks, process_group
from elcrec.training.epoch_columns import SECONDS, columns_for
from elcrec.training.loop import Fitted, fit
from elcrec.training.warm_start import WarmStart

logger = logging.getLogger(__name__)

_MANY_ITEMS = 100_000
"""Number of items from which on scoring all of them costs more than everything else."""
_GRACE_SECONDS = 40.0
"""Seconds to wait for the pods of an ended job: a cluster gives them 30 s, while the next attempt may already begin."""


def train(
    config: TrainConfig, sequences: Path, out: Path, *, checkpoint: Path, warm_start: Path | None = None
) -> dict[str, Any]:
    """Train a model and write `model.safetensors`, `config.json`, `history.csv`, `measured.json` and `training.html`.

    Under torchrun every process trains its share of each step, and only the leader writes. Without the extra `report`
    there is no page, and a log line says so.

    Args:
        config: model and optimisation.
        sequences: output of the sequences stage.
        out: the model folder to write.
        checkpoint: folder for the state of an unfinished run; emptied at the end.
        warm_start: bundle of a pushed model whose weights training starts from.

    Returns:
        Epochs and validation metrics; empty on a process that is not the leader.

    Raises:
        UserError: the data cannot be used for training, the window is longer than the served histories, the bundle is
            damaged or has another encoder, or the output cannot be written.
    """
    device = choose_device(config.device)
    with process_group(device) as ranks:
        verify(sequences, "split.json", "sequences.parquet", "items.parquet")
        data = load_sequences(sequences)
        require_served_window(config.encoder.window, sequences, where=sequences)
        start = _read_start(warm_start, sequences) if warm_start else None
        valid = _asked(config, data, sequences)
        if config.next_item.loss == "softmax" and data.num_items > _MANY_ITEMS:
            logger.warning(
                "every step scores all %d items; train.next_item.loss=sampled_softmax with train.item_updates=lazy is "
                "faster (docs/training.md, Large catalogues)",
                data.num_items,
            )
        if not ranks.leads:
            fit(data, config, checkpoint, ranks, start, valid)
            return {}
        with stage_output(out, patience=_GRACE_SECONDS) as scratch:
            fitted = fit(data, config, checkpoint, ranks, start, valid)
            _write(fitted, config, data, scratch, warm_start=start.digest if start else None)
            _write_measured(scratch, fitted, _machine(device, ranks))
            _write_page(scratch, fitted, data, _machine(device, ranks))
        discard_checkpoint(checkpoint)
    return {"epochs": fitted.progress.epoch, "best_epoch": fitted.progress.best_epoch} | {
        f"valid_{name}": value for name, value in fitted.valid.items()
    }


def _asked(config: TrainConfig, data: SequenceData, sequences: Path) -> EvaluationSet:
    """Return the users to validate on: all, or the configured number."""
    valid, among = asked_users(data, "valid", config.valid_users, sequences), len(data.asked("valid"))
    if len(valid.users) < among:
        logger.info("validating on %d of %d users, chosen by the hashes of their ids", len(valid.users), among)
    return valid


def _read_start(bundle: Path, sequences: Path) -> WarmStart:
    digest = verify_bundle(bundle).digest
    ours, theirs = (load_catalogue(folder / "items.parquet") for folder in (sequences, bundle))
    items = theirs.indices(ours.item_ids)
    # Of an item without a training interaction, the other model has learned nothing.
    items[items > 0] *= theirs.counts[items[items > 0] - 1] > 0
    logger.info("warm start from %s: %d of %d items known", digest[:12], (items > 0).sum(), len(items))
    return WarmStart(model=load_model(bundle), items=items, digest=digest)


def _write(fitted: Fitted, config: TrainConfig, data: SequenceData, folder: Path, *, warm_start: str | None) -> None:
    progress = fitted.progress
    facts: dict[str, Any] = {
        "sequences_md5": data.md5,
        "git_revision": code_revision(),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "valid": fitted.valid,
    }
    facts |= {name: chosen._asdict() for name, chosen in fitted.additions.items()}
    if warm_start:
        facts["warm_start"] = warm_start
    save_model(fitted.model, folder, config, **facts)
    write_history(folder / "history.csv", progress.history, fitted.terms)


def _write_measured(folder: Path, fitted: Fitted, trained_on: str) -> None:
    """Write measurements that differ between runs with the same inputs, and so do not belong to the model."""
    seconds = [row[SECONDS] for row in fitted.progress.history]
    document = {
        "schema_version": SCHEMA_VERSION,
        "seconds": round(sum(seconds), 1),
        "epoch_seconds": seconds,
        "trained_on": trained_on,
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / MEASURED, document)
    logger.info("trained in %.0f s", sum(seconds))


def _machine(device: torch.device, ranks: Ranks) -> str:
    """Return a description of the machine that trained."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, {ranks.count} {'process' if ranks.count == 1 else 'processes'}"


def _write_page(folder: Path, fitted: Fitted, data: SequenceData, trained_on: str) -> None:
    if not can_write_pages():
        logger.warning("no training.html: the page needs the extra report; %s", INSTALL)
        return
    columns = [*columns_for(fitted.terms), SECONDS]
    history = pd.DataFrame(fitted.progress.history, columns=columns).astype(float).astype({"epoch": int})
    config = read_json(folder / CONFIG)
    write_training_page(folder / "training.html", config=config, history=history, data=data, trained_on=trained_on)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> None:
    """Write one row per epoch; values that an epoch does not have stay empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns_for(terms), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
