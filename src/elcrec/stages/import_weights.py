"""Stage import-weights: a checkpoint of the published code in, a model folder for given sequences out."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elcrec.artifacts import atomic_dir, code_revision, sha256_of
from elcrec.data.dataset import load_item_ids, load_sequences, require_served_window
from elcrec.errors import UserError
from elcrec.model.io import save_model
from elcrec.model.published import PublishedWeights, read_published

logger = logging.getLogger(__name__)

_ROW = re.compile("[1-9][0-9]*")


def import_weights(
    checkpoint: Path, sequences: Path, out: Path, *, num_heads: int = 2, drop_absent_items: bool = False
) -> dict[str, Any]:
    """Write a checkpoint of the published code as `model.safetensors` and `config.json`.

    The published code takes the raw integer id for the row of its item table; our indices are another order, so the
    rows are put into that of `items.parquet`.

    Args:
        checkpoint: the file that the published code saved.
        sequences: output of the sequences stage, of the log that the model was trained on.
        out: the model folder to write.
        num_heads: attention heads, which no shape tells.
        drop_absent_items: accept a table with items that the sequences lack, and leave those out. Ranks are then
            among fewer items than in the published evaluation.

    Returns:
        What was read: the objective and the sizes.

    Raises:
        UserError: the checkpoint is unusable, does not fit the sequences, or the output cannot be written.
    """
    _require_apart(out, checkpoint, sequences)
    data = load_sequences(sequences)
    item_ids = load_item_ids(sequences, data)
    published = read_published(checkpoint)
    rows_V = table_rows(item_ids, published.num_items, where=sequences / "items.parquet")
    absent = published.num_items - len(rows_V)
    if absent:
        _accept_absent(published, absent, sequences, drop=drop_absent_items)
    model = published.to_model(rows_V, num_heads)
    require_served_window(model.config.encoder.window, sequences, where=checkpoint)
    source = {"file": checkpoint.name, "sha256": sha256_of(checkpoint), "absent_items": absent}
    with atomic_dir(out) as scratch:
        save_model(model, scratch, sequences_md5=data.md5, git_revision=code_revision(), imported=source)
    encoder = model.config.encoder
    return {
        "objective": model.config.objective,
        "num_items": model.num_items,
        "window": encoder.window,
        "hidden_size": encoder.hidden_size,
        "num_blocks": encoder.num_blocks,
        "num_heads": encoder.num_heads,
        "num_intents": model.num_intents,
    }


def _require_apart(out: Path, *inputs: Path) -> None:
    """Refuse to replace a folder that an input lies in."""
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"would be replaced, and {path} with it", where=out, fix="name another folder with --out")


def table_rows(item_ids: Sequence[str], num_items: int, *, where: object) -> npt.NDArray[np.int64]:
    """Return the row of each item in a table whose rows are raw ids, [V].

    Args:
        item_ids: raw ids of items 1 to V.
        num_items: the table's largest id.
        where: named in errors.

    Raises:
        UserError: an id is not a whole number, or has no row.
    """
    fix = "give the sequences of the log that the model was trained on"
    faulty = [item for item in item_ids if not _ROW.fullmatch(item)]
    if faulty:
        what = f"item ids that are not whole numbers from 1 on, so not rows of the table: {_some(faulty)}"
        raise UserError(what, where=where, fix=fix)
    beyond = [item for item in item_ids if int(item) > num_items]
    if beyond:
        raise UserError(f"item ids beyond the table of {num_items} items: {_some(beyond)}", where=where, fix=fix)
    return np.array([int(item) for item in item_ids], np.int64)


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(repr(item) for item in items[:3])
    return f"{shown} ({len(items)} in all)" if len(items) > 1 else shown


def _accept_absent(published: PublishedWeights, absent: int, sequences: Path, *, drop: bool) -> None:
    missing = f"{absent} of its {published.num_items} items do not occur in {sequences}"
    if not drop:
        fix = (
            "give the sequences of the log that it was trained on, or leave these items out of the ranking with "
            "--drop-absent-items"
        )
        raise UserError(f"perhaps trained on another log: {missing}", where=published.path, fix=fix)
    logger.warning("%s and are left out: ranks are among fewer items than in the published evaluation", missing)
