"""Stage sequences: turn validated interactions into sequences, the item index and the split."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elcrec.artifacts import SCHEMA_VERSION, md5_of, read_json, write_json
from elcrec.config import SequencesConfig, to_dict
from elcrec.custody import stage_output, verify
from elcrec.data.engine import Engine, Session
from elcrec.data.fold import Choice, Folded, fold, item_table
from elcrec.data.interactions import EVENT_ID, KIND, TIE, interaction_schema
from elcrec.data.selection import Kinds, select_events, stream_dislikes
from elcrec.data.sequences import Cuts, drawn, find_cuts, index_ids, keep_core, stream_events, stream_users
from elcrec.errors import UserError

Metrics = dict[str, float | int | str]

logger = logging.getLogger(__name__)

_LEAST_PAIRS = 100
_SORTED_SHARE = 0.9
"""If the order has nothing to do with ids, about half of all neighbours ascend."""


def build_sequences(config: SequencesConfig, interactions: Path, out: Path, *, engine: Engine) -> Metrics:
    """Write `sequences.parquet`, `histories.parquet`, `items.parquet` and `split.json`.

    Args:
        config: filter and split.
        interactions: the validate stage's folder.
        out: the folder to write.
        engine: filters and sorts; the results do not depend on it.

    Raises:
        UserError: the input is not an output of the validate stage, or nothing is left to train on or to evaluate.
    """
    verify(interactions, "validation.json", "interactions.parquet")
    time = read_json(interactions / "validation.json").get("time")
    if config.split == "temporal" and time != "real":
        fix = "use sequences.split=leave_one_out"
        raise UserError("a temporal split needs real times; this log has only an order", where=interactions, fix=fix)
    own = _own_columns(interactions / "interactions.parquet")
    _require_columns(config, own, str(time), interactions)
    with stage_output(out) as folder:
        with engine.session(out) as session:
            log = [interactions / "interactions.parquet"]
            counts, cuts = _build(config, log, folder, session, own)
        _require_parts(counts, interactions)
        _warn_of_ties(counts)
        document = _describe(counts, cuts, config, str(time)) | {"md5": md5_of(folder / "sequences.parquet")}
        write_json(folder / "split.json", document)
    sizes = {name: value for name, value in document.items() if name.startswith("num_")}
    return sizes | {"num_tied_events": counts.ties.events}


def _own_columns(path: Path) -> list[str]:
    """Check that the file is readable, and return its further columns."""
    try:
        found = pq.read_schema(path)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path, fix="run the validate stage first") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="run the validate stage again") from error
    own = [name for name in (EVENT_ID, KIND, TIE) if name in found.names]
    wanted = interaction_schema(own)
    wrong = [column for column in wanted if column.name not in found.names or found.field(column.name) != column]
    if wrong:
        what = f"not readable (no column {wrong[0].name!r} of type {wrong[0].type})"
        raise UserError(what, where=path, fix="run the validate stage again")
    return own


def _require_columns(config: SequencesConfig, own: Sequence[str], time: str, where: Path) -> None:
    """Check that the log has the columns that the configuration needs."""
    asked = {"kind_column": (KIND, bool(config.kinds.named)), "tie_column": (TIE, config.ties == "column")}
    for option, (column, wanted) in asked.items():
        if wanted and column not in own:
            fix = f"set validate.{option} and run the validate stage again"
            raise UserError(f"the interactions have no column {column!r}", where=where, fix=fix)
    if config.session_gap is not None and time != "real":
        fix = "unset sequences.session_gap"
        raise UserError(
            "sessions end after minutes, but this log has only an order, no real times", where=where, fix=fix
        )


def _build(
    config: SequencesConfig, interactions: Sequence[Path], folder: Path, session: Session, own: Collection[str]
) -> tuple[Folded, Cuts | None]:
    session.scan("interactions", interactions)
    more = select_events(session, own, config)
    core = keep_core(session, config.k_core, more)
    if not core.events:
        what = f"no interaction is left in the {config.k_core}-core" if config.k_core else "no interaction is left"
        raise UserError(what, where=interactions[0].parent, fix="lower sequences.k_core, or raise most_events")
    shares = (config.valid_share, config.test_share)
    cuts = find_cuts(session, core.events, *shares) if config.split == "temporal" else None
    tie = {"log": None, "column": f"core.{TIE}", "drawn": drawn(config.ties_seed)}[config.ties]
    items = index_ids(session, core, tie)
    streams = (stream_events(session, tied=tie is not None), stream_users(session))
    choice = Choice(
        most=config.history,
        cuts=cuts,
        event_ids=EVENT_ID in more,
        kinds=Kinds.of(config.kinds),
        merge=config.consecutive == "merge",
    )
    disliked = stream_dislikes(session) if config.kinds.dislikes else None
    counts = fold(*streams, items, folder, choice, disliked)
    pq.write_table(item_table(items, counts.training, counts.total), folder / "items.parquet", compression="zstd")
    return counts, cuts


def _require_parts(counts: Folded, interactions: Path) -> None:
    parts = {"training interactions": counts.train_events}
    parts |= {"validation targets": counts.valid_targets, "test targets": counts.test_targets}
    empty = [name for name, present in parts.items() if not present]
    if empty:
        fix = "bring more data, or change sequences.split, valid_share or test_share"
        raise UserError(f"the split leaves no {' and no '.join(empty)}", where=interactions, fix=fix)


def _warn_of_ties(counts: Folded) -> None:
    """Warn if events with the same time are ordered by item id, probably because the log was sorted."""
    ties = counts.ties
    if ties.events:
        logger.info(
            "%.1f %% of events have the same time as another event of their user", 100 * ties.events / counts.events
        )
    if ties.pairs >= _LEAST_PAIRS and max(ties.rising, ties.pairs - ties.rising) >= _SORTED_SHARE * ties.pairs:
        logger.warning(
            "%.0f %% of neighbours with the same time are in the order of their item ids, which tells the model what "
            "comes next; set sequences.ties=drawn, or give the log its true order",
            100 * max(ties.rising, ties.pairs - ties.rising) / ties.pairs,
        )


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
        "ties": {
            "order": config.ties,
            "events": counts.ties.events,
            "pairs": counts.ties.pairs,
            "in_order_of_items": counts.ties.rising,
        },
        "time": time,
        "valid_cut": _iso(cuts.valid) if cuts else None,
        "test_cut": _iso(cuts.test) if cuts else None,
        "k_core": config.k_core,
        "repeats": config.repeats,
        "consecutive": config.consecutive,
        "kinds": to_dict(config.kinds),
        "session_gap": config.session_gap,
        "history": config.history,
    }


def _iso(microseconds: int) -> str:
    return f"{np.datetime64(microseconds, 'us')}Z"
