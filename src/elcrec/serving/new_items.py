"""A model and its catalogue, extended by new items."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from elcrec.model.sequence_model import SequenceModel
from elcrec.ranking.new_items import NewItems, with_vectors
from elcrec.serving.catalogue import UNKNOWN, Catalogue


@dataclass(frozen=True, kw_only=True)
class Served:
    """The model that ranks, and its items.

    Attributes:
        model: ready to encode.
        catalogue: its items.
        new_V: which items have a given vector and were not trained, [V + 1]; `None` if there are none.
    """

    model: SequenceModel
    catalogue: Catalogue
    new_V: npt.NDArray[np.bool_] | None


def with_new_items(model: SequenceModel, catalogue: Catalogue, new: NewItems | None) -> Served:
    """Put new items into a model and its catalogue: in their rows if they have some, else after all others."""
    if new is None:
        return Served(model=model, catalogue=catalogue, new_V=None)
    rows_W = catalogue.indices(new.item_ids).astype(np.int64)
    absent_W = rows_W == UNKNOWN
    added = int(absent_W.sum())
    rows_W[absent_W] = len(catalogue) + 1 + np.arange(added)
    trained_VD = model.item_embeddings().cpu().numpy()
    vectors_VD = np.concatenate((trained_VD, np.zeros((added, trained_VD.shape[1]), np.float32)))
    vectors_VD[rows_W] = new.vectors_WD
    new_V = np.zeros(len(vectors_VD), np.bool_)
    new_V[rows_W] = True
    item_ids = pa.concat_arrays([catalogue.item_ids, new.item_ids.filter(pa.array(absent_W))])
    counts = np.concatenate((catalogue.counts, np.zeros(added, np.int64)))
    wider = Catalogue(item_ids=item_ids, counts=counts)
    return Served(model=with_vectors(model, vectors_VD, rows_W), catalogue=wider, new_V=new_V)
