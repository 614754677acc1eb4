"""Turn validated interactions into sequences, the item index and the split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, atomic_dir, md5_of, read_json, write_json
from elcrec.config import SequencesConfig
from elcrec.data.engine import Engine, Session
from elcrec.data.fold import Folded, fold, item_table
from elcrec.data.sequences import Cuts, find_cuts, index_ids, keep_core, stream_events, stream_users
from elcrec.data.sorting import INTERACTIONS
from elcrec.errors import UserError

Metrics = dict[str, float | int | str]


def build_sequences(config: SequencesConfig, interactions: Path, out: Path, *, engine: Engine) -> Metrics:
    """Write `sequences.parquet`, `histories.parquet`, `items.parquet` and `split.json`.

    Args:
        config: filter and split.
        interactions: the validate stage's folder.
        out: the folder to write.
        engine: what filters and sorts; no result depends on which.

    Raises:
        UserError: the input is not the validate stage's, or nothing is left to train on or to evaluate.
    """
    time = read_json(interactions / "validation.json").get("time")
    if config.split == "temporal" and time != "real":
        fix = "use sequences.split=leave_one_out"
        raise UserError("a temporal split needs real times; this log has only an order", where=interactions, fix=fix)
    _require_readable(interactions / "interactions.parquet")
    with atomic_dir(out) as folder:
        with engine.session(out) as session:
            counts, cuts = _build(config, [interactions / "interactions.parquet"], folder, session)
        _require_parts(counts, interactions)
        document = _describe(counts, cuts, config, str(time)) | {"md5": md5_of(folder / "sequences.parquet")}
        write_json(folder / "split.json", document)
    return {name: value for name, value in document.items() if name.startswith("num_")}


def _require_readable(path: Path) -> None:
    try:
        found = pq.read_schema(path)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix="run the validate stage first") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the validate stage again") from error
    wrong = [column for column in INTERACTIONS if column.name not in found.names or found.field(column.name) != column]
    if wrong:
        what = f"not readable (no column {wrong[0].name!r} of type {wrong[0].type})"
        raise UserError(what, where=path, fix="run the validate stage again")


def _build(
    config: SequencesConfig, interactions: Sequence[Path], folder: Path, session: Session
) -> tuple[Folded, Cuts | None]:
    session.scan("interactions", interactions)
    session.view("log", "SELECT row, user_id, item_id, unix_micros(timestamp) AS micros FROM interactions")
    core = keep_core(session, config.k_core)
    if not core.events:
        what = f"no interaction is left of the {config.k_core}-core"
        raise UserError(what, where=interactions[0].parent, fix="lower sequences.k_core")
    shares = (config.valid_share, config.test_share)
    cuts = find_cuts(session, core.events, *shares) if config.split == "temporal" else None
    items = index_ids(session, core)
    streams = (stream_events(session), stream_users(session))
    counts = fold(*streams, items, folder, most=config.history, cuts=cuts)
    pq.write_table(item_table(items, counts.training), folder / "items.parquet", compression="zstd")
    return counts, cuts


def _require_parts(counts: Folded, interactions: Path) -> None:
    parts = {"training interactions": counts.train_events}
    parts |= {"validation targets": counts.valid_targets, "test targets": counts.test_targets}
    empty = [name for name, present in parts.items() if not present]
    if empty:
        fix = "bring more data, or change sequences.split, valid_share or test_share"
        raise UserError(f"the split leaves no {' and no '.join(empty)}", where=interactions, fix=fix)


def _describe(counts: Folded, cuts: Cuts | None, config: SequencesConfig, time: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "split": config.split,
        "num_users": counts.users,
        "num_items": len(counts.training),
        "num_interactions": counts.events,
        "num_train_interactions": counts.train_events,
        "num_valid_targets": counts.valid_targets,
        "num_test_targets": counts.test_targets,
        "time": time,
        "valid_cut": _iso(cuts.valid) if cuts else None,
        "test_cut": _iso(cuts.test) if cuts else None,
        "k_core": config.k_core,
        "history": config.history,
    }


def _iso(microseconds: int) -> str:
    return f"{np.datetime64(microseconds, 'us')}Z"
