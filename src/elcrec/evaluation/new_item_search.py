"""Finding the items that are new to a model, from the log, later live events, and the items file.

Axes: `V` items of the model; `W` these and the items beyond its catalogue; row 0 of every array is padding.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elcrec.config import EvaluateConfig
from elcrec.data.dataset import PADDING
from elcrec.data.ragged import Ragged
from elcrec.errors import UserError
from elcrec.ranking.new_items import Floats, NewItems
from elcrec.ranking.new_vectors import Clues, give_vectors

_EVENTS = ("user_id", "item_id", "timestamp")


def find_new_items(
    config: EvaluateConfig,
    vectors_VD: Floats,
    counts: npt.NDArray[np.int64],
    item_ids: Sequence[str],
    sequences: Ragged,
    user_ids: pa.Array,
    table: pa.Table | None,
) -> NewItems | None:
    """Return the new items that a source knows, from all present data; `None` if there are none.

    New items are those of the model's catalogue without a training interaction, and those of the items file beyond the
    catalogue. Without an items file, the live events are used instead.

    Args:
        config: the section `evaluate`.
        vectors_VD: the model's item embeddings, [V + 1, D].
        counts: training count of each item, [V + 1].
        item_ids: raw ids of items 1 to V.
        sequences: all items of every user.
        user_ids: raw ids of the users.
        table: the items file.

    Raises:
        UserError: the live events or the text model are not usable.
    """
    options, known = config.new_items, pa.array(item_ids, pa.string())
    events = None if options.log is None else read_events(Path(options.log))
    stated = table if table is not None else events
    wider = known if stated is None else pa.concat_arrays([known, _beyond(stated["item_id"], known)])
    histories = sequences if events is None else _followed(sequences, user_ids, events, wider)
    texts_W = texts_of(table, wider) if "text" in options.sources and table is not None else None
    trained_W = np.zeros(len(wider) + 1, np.bool_)
    trained_W[: len(counts)] = counts > 0
    wanted_W = ~trained_W
    wanted_W[PADDING] = False
    vectors_WD = np.zeros((len(wider) + 1, vectors_VD.shape[1]), np.float32)
    vectors_WD[: len(vectors_VD)] = vectors_VD
    given = give_vectors(options, Clues(histories=histories, texts_V=texts_W), vectors_WD, trained_W, wanted_W)
    if not len(given.items):
        return None
    found_ids = wider.take(pa.array(given.items - 1))
    return NewItems(item_ids=found_ids, vectors_WD=given.vectors_WD, sources=pa.array(given.sources, pa.string()))


def texts_of(table: pa.Table, item_ids: pa.Array) -> list[str]:
    """Return the title and the category of each item as one text, empty for padding and if the file has neither.

    Raises:
        UserError: the items file has neither for any item.
    """
    title, category = (pc.fill_null(table[name], "") for name in ("title", "category"))
    if not pc.any(pc.greater(pc.add(pc.binary_length(title), pc.binary_length(category)), 0)).as_py():
        fix = "write a column title, or take text out of evaluate.new_items.sources"
        raise UserError("no item has a title or a category to read", where="evaluate.items_file", fix=fix)
    rows = pc.index_in(item_ids, value_set=table["item_id"].combine_chunks())
    texts: list[str] = pc.fill_null(pc.binary_join_element_wise(title, category, " ").take(rows), "").to_pylist()
    return ["", *texts]


def read_events(path: Path) -> pa.Table:
    """Read an exported event log, in order of time.

    Raises:
        UserError: it cannot be read, or has other columns.
    """
    try:
        table = pq.read_table(path, columns=list(_EVENTS)).sort_by("timestamp")
        return table.set_column(0, "user_id", table["user_id"].cast(pa.string())).set_column(
            1, "item_id", table["item_id"].cast(pa.string())
        )
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"not readable ({error})", where=path, fix="write it with elcrec events export") from error


def _beyond(item_ids: pa.ChunkedArray, known: pa.Array) -> pa.Array:
    distinct = pc.unique(item_ids)
    return distinct.filter(pc.invert(pc.is_in(distinct, value_set=known)))


def _followed(sequences: Ragged, user_ids: pa.Array, events: pa.Table, wider: pa.Array) -> Ragged:
    """Append each user's events to their sequence; events of other users become new rows."""
    places = pc.index_in(events["item_id"].combine_chunks(), value_set=wider)
    events, items = events.filter(pc.is_valid(places)), np.asarray(pc.drop_null(places), np.int32) + 1
    everybody = pa.concat_arrays([user_ids, events["user_id"].combine_chunks()]).dictionary_encode()
    owners = np.concatenate((sequences.owners, np.asarray(everybody.indices, np.int64)[len(user_ids) :]))
    values = np.concatenate((sequences.values, items))
    order = np.argsort(owners, kind="stable")
    return Ragged.of(values[order], np.bincount(owners, minlength=len(sequences)))
