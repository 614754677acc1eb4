"""New items, which have a given vector and were not trained: their file, and a model that ranks them.

Such an item is either beyond the model's catalogue, or in it without a training interaction, so that its vector is
still the initial one.

Axes: `V` items of the model, `W` new items, `D` hidden size.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from elcrec.artifacts import SCHEMA_VERSION
from elcrec.errors import UserError
from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.files import NEW_ITEMS

Floats = npt.NDArray[np.float32]

_VERSION = b"schema_version"
_EMBEDDING = "encoder.item_embedding.weight"
_OF_ITEMS = ("neighbours.", "followers.", "popularity_V")
"""Weights of a model that have a row for each item, apart from the embedding."""


@dataclass(frozen=True, kw_only=True)
class NewItems:
    """New items of one model.

    Attributes:
        item_ids: raw ids, strings, [W].
        vectors_WD: their vectors, in the space of the trained embeddings.
        sources: source of each vector, [W].
    """

    item_ids: pa.Array
    vectors_WD: Floats
    sources: pa.Array

    def __len__(self) -> int:
        return len(self.item_ids)


def write_new_items(new: NewItems, folder: Path) -> None:
    """Write `item_id`, `source` and `vector` (fixed-size list of float32)."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(new.vectors_WD.ravel()), new.vectors_WD.shape[1])
    table = pa.table({"item_id": new.item_ids, "source": new.sources, "vector": vectors})
    marked = table.replace_schema_metadata({_VERSION: str(SCHEMA_VERSION).encode()})
    pq.write_table(marked, folder / NEW_ITEMS, compression="zstd")


def read_new_items(folder: Path, hidden_size: int) -> NewItems | None:
    """Read the new items of a model; `None` if a folder has none.

    Raises:
        UserError: the file is damaged, has another schema, or its vectors do not have this model's width.
    """
    path = folder / NEW_ITEMS
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, columns=["item_id", "source", "vector"])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _unusable(path, f"not readable ({error})") from error
    version = (table.schema.metadata or {}).get(_VERSION, b"").decode()
    if version != str(SCHEMA_VERSION):
        raise _unusable(path, f"schema version {version or 'unknown'}, this program reads {SCHEMA_VERSION}")
    kind = table.schema.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != hidden_size:
        raise _unusable(path, f"vectors of {kind}, not of {hidden_size} numbers like the model's")
    item_ids = table["item_id"].combine_chunks().cast(pa.string())
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not np.isfinite(flat).all() or len(pc.unique(item_ids)) != len(item_ids) or item_ids.null_count:
        raise _unusable(path, "an item occurs twice or has no id, or a vector is not finite")
    vectors_WD = flat.reshape(-1, hidden_size).astype(np.float32)
    return NewItems(item_ids=item_ids, vectors_WD=vectors_WD, sources=table["source"].combine_chunks())


def with_vectors(model: SequenceModel, vectors_VD: Floats, new_W: npt.NDArray[np.int64]) -> SequenceModel:
    """Return a model with the same weights and the given item embeddings, for any number of items, [V + 1, D].

    It uses them both for scores and for reading histories, so it knows new items in both. The new items, at the indices
    `new_W`, have no neighbours and no followers, and are as popular as others on average.
    """
    num_items = len(vectors_VD) - 1
    bare = msgspec.structs.replace(model.config, neighbours=0, followers=0, popularity=False)
    other = SequenceModel(bare, num_items)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_OF_ITEMS)}
    weights[_EMBEDDING] = torch.from_numpy(vectors_VD)
    other.load_state_dict(weights)
    if model.neighbours is not None:
        other.know(neighbours=model.neighbours.without(new_W, num_items))
    if model.followers is not None:
        other.know(followers=model.followers.without(new_W, num_items))
    if model.popularity_V is not None:
        popularity_V = F.pad(model.popularity_V, (0, num_items + 1 - len(model.popularity_V)))
        popularity_V[torch.from_numpy(new_W)] = 0
        other.know(popularity_V=popularity_V)
    return other.to(model.device).eval()


def _unusable(path: Path, what: str) -> UserError:
    return UserError(what, where=path, fix="evaluate and push the model again")
