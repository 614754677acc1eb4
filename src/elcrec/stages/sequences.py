"""Turn validated interactions into sequences, the item index and the split."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, md5_of, read_json, write_json
from elcrec.config import SequencesConfig
from elcrec.data.rows import EVENT_ID, INTERACTION_COLUMNS
from elcrec.data.sequences import (
    NO_TARGET,
    Codes,
    SplitIndex,
    history_table,
    item_table,
    k_core,
    leave_one_out,
    sequence_table,
    temporal,
)
from elcrec.errors import UserError

Metrics = dict[str, float | int | str]


def build_sequences(config: SequencesConfig, interactions: Path, out: Path) -> Metrics:
    """Write `sequences.parquet`, `histories.parquet`, `items.parquet` and `split.json`.

    Args:
        config: filter and split.
        interactions: the validate stage's folder.
        out: the folder to write.

    Raises:
        UserError: the input is not the validate stage's, or nothing is left to train on or to evaluate.
    """
    time = read_json(interactions / "validation.json").get("time")
    if config.split == "temporal" and time != "real":
        fix = "use sequences.split=leave_one_out"
        raise UserError("a temporal split needs real times; this log has only an order", where=interactions, fix=fix)
    codes = _filter(_read(interactions), config.k_core, interactions).in_order()
    split = _split(codes, config)
    _require_parts(split, interactions)
    with atomic_dir(out) as folder:
        _write(folder / "sequences.parquet", sequence_table(codes, split))
        _write(folder / "histories.parquet", history_table(codes, config.history))
        _write(folder / "items.parquet", item_table(codes, split))
        document = _describe(codes, split, config, str(time)) | {"md5": md5_of(folder / "sequences.parquet")}
        write_json(folder / "split.json", document)
    return {name: value for name, value in document.items() if name.startswith("num_")}


def _read(interactions: Path) -> Codes:
    path = interactions / "interactions.parquet"
    try:
        wanted = [*INTERACTION_COLUMNS, *(name for name in (EVENT_ID,) if name in pq.read_schema(path).names)]
        return Codes.of(pq.read_table(path, columns=wanted))
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix="run the validate stage first") from error
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the validate stage again") from error


def _filter(codes: Codes, k: int, interactions: Path) -> Codes:
    if k > 1:
        codes = codes.keep(k_core(codes.user, codes.item, k))
    if not len(codes.user):
        raise UserError(f"no interaction is left of the {k}-core", where=interactions, fix="lower sequences.k_core")
    return codes


def _split(codes: Codes, config: SequencesConfig) -> SplitIndex:
    if config.split == "temporal":
        return temporal(codes, config.valid_share, config.test_share)
    return leave_one_out(np.diff(codes.offsets))


def _require_parts(split: SplitIndex, interactions: Path) -> None:
    parts = {"training interactions": split.train_end > 0}
    parts |= {"validation targets": split.valid != NO_TARGET, "test targets": split.test != NO_TARGET}
    empty = [name for name, present in parts.items() if not present.any()]
    if empty:
        fix = "bring more data, or change sequences.split, valid_share or test_share"
        raise UserError(f"the split leaves no {' and no '.join(empty)}", where=interactions, fix=fix)


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def _describe(codes: Codes, split: SplitIndex, config: SequencesConfig, time: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "split": config.split,
        "num_users": len(codes.user_ids),
        "num_items": len(codes.item_ids),
        "num_interactions": len(codes.user),
        "num_train_interactions": int(split.train_end.sum()),
        "num_valid_targets": int((split.valid != NO_TARGET).sum()),
        "num_test_targets": int((split.test != NO_TARGET).sum()),
        "time": time,
        "valid_cut": _iso(split.valid_cut),
        "test_cut": _iso(split.test_cut),
        "k_core": config.k_core,
        "history": config.history,
    }


def _iso(microseconds: int | None) -> str | None:
    return None if microseconds is None else f"{np.datetime64(microseconds, 'us')}Z"
