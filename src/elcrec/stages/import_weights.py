"""Stage import-weights: turn a checkpoint of the published code into a model folder for given sequences."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from elcrec.artifacts import code_revision, sha256_of
from elcrec.config import TrainConfig
from elcrec.custody import stage_output, verify
from elcrec.data.dataset import load_item_ids, load_sequences, require_served_window
from elcrec.errors import UserError
from elcrec.model.io import save_model
from elcrec.model.sequence_model import SequenceModel

logger = logging.getLogger(__name__)

_ROW = re.compile("[1-9][0-9]*")


class ForeignWeights(Protocol):
    """A complete checkpoint of other code; its item table has a row for each raw id."""

    @property
    def num_items(self) -> int:
        """The largest raw id."""

    def config(self, num_heads: int) -> TrainConfig:
        """Return the known part of the training's configuration."""

    def to_model(self, rows_V: npt.NDArray[np.int64], num_heads: int) -> SequenceModel:
        """Return the model of items 1 to V, where item i has the i-th of the given rows of the table."""


def import_weights(
    checkpoint: Path,
    sequences: Path,
    out: Path,
    *,
    read: Callable[[Path], ForeignWeights],
    num_heads: int = 2,
    drop_absent_items: bool = False,
) -> dict[str, Any]:
    """Write a checkpoint of the published code as `model.safetensors` and `config.json`.

    In the published code, the raw integer id of an item is its row in the item table. Our indices have another order,
    so the rows are put into the order of `items.parquet`.

    Args:
        checkpoint: the file that the published code saved.
        sequences: output of the sequences stage, of the log that the model was trained on.
        out: the model folder to write.
        read: reads the checkpoint, or raises a `UserError`.
        num_heads: number of attention heads, which cannot be derived from any shape.
        drop_absent_items: accept a table with items that the sequences lack, and drop these. Ranks are then among fewer
            items than in the published evaluation.

    Returns:
        The objective and the sizes of the checkpoint.

    Raises:
        UserError: the checkpoint is unusable or does not match the sequences, or the output cannot be written.
    """
    _require_apart(out, checkpoint, sequences)
    verify(sequences, "split.json", "sequences.parquet", "items.parquet")
    data = load_sequences(sequences)
    item_ids = load_item_ids(sequences, data.num_items)
    published = read(checkpoint)
    rows_V = table_rows(item_ids, published.num_items, where=sequences / "items.parquet")
    absent = published.num_items - len(rows_V)
    if absent:
        missing = f"{absent} of its {published.num_items} items do not occur in {sequences}"
        _accept_absent(missing, checkpoint, drop=drop_absent_items)
    config, model = published.config(num_heads), published.to_model(rows_V, num_heads)
    require_served_window(model.config.encoder.window, sequences, where=checkpoint)
    source = {"file": checkpoint.name, "sha256": sha256_of(checkpoint), "absent_items": absent}
    with stage_output(out) as scratch:
        save_model(model, scratch, config, sequences_md5=data.md5, git_revision=code_revision(), imported=source)
    encoder = model.config.encoder
    return {
        "objective": config.objective,
        "num_items": model.num_items,
        "window": encoder.window,
        "hidden_size": encoder.hidden_size,
        "num_blocks": encoder.num_blocks,
        "num_heads": encoder.num_heads,
        "num_intents": model.num_intents,
    }


def _require_apart(out: Path, *inputs: Path) -> None:
    """Refuse to replace a folder that contains an input."""
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"would be replaced, together with {path}", where=out, fix="name another folder with --out")


def table_rows(item_ids: Sequence[str], num_items: int, *, where: object) -> npt.NDArray[np.int64]:
    """Return the row of each item in a table whose rows are raw ids, [V].

    Args:
        item_ids: raw ids of items 1 to V.
        num_items: the table's largest id.
        where: name for errors.

    Raises:
        UserError: an id is not a whole number, or has no row.
    """
    fix = "give the sequences of the log that the model was trained on"
    faulty = [item for item in item_ids if not _ROW.fullmatch(item)]
    if faulty:
        what = f"item ids that are not whole numbers from 1, so not rows of the table: {_some(faulty)}"
        raise UserError(what, where=where, fix=fix)
    beyond = [item for item in item_ids if int(item) > num_items]
    if beyond:
        raise UserError(f"item ids beyond the table of {num_items} items: {_some(beyond)}", where=where, fix=fix)
    return np.array([int(item) for item in item_ids], np.int64)


def _some(items: Sequence[str]) -> str:
    shown = ", ".join(repr(item) for item in items[:3])
    return f"{shown} ({len(items)} in all)" if len(items) > 1 else shown


def _accept_absent(missing: str, checkpoint: Path, *, drop: bool) -> None:
    if not drop:
        fix = (
            "give the sequences of the log that it was trained on, or leave these items out of the ranking with "
            "--drop-absent-items"
        )
        raise UserError(f"perhaps trained on another log: {missing}", where=checkpoint, fix=fix)
    logger.warning("%s and are left out: ranks are among fewer items than in the published evaluation", missing)
