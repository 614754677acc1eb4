"""Recall of the configured search, compared with exact search, measured with the server's own code."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from elcrec.artifacts import read_json
from elcrec.config import EvaluateConfig, SearchConfig
from elcrec.data.dataset import EvaluationSet
from elcrec.data.evenly import evenly_spread
from elcrec.data.ragged import Ragged
from elcrec.evaluation.predictions import TOP_K
from elcrec.evaluation.search import Lists, SearchFindings, recall_of
from elcrec.model.io import load_model
from elcrec.ranking.item_facts import align
from elcrec.ranking.new_items import NewItems
from elcrec.serving.bundle import Manifest
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.new_items import with_new_items
from elcrec.serving.recommender import Recommender

_MOST_USERS = 2000


def measure_search(
    config: EvaluateConfig,
    model: Path,
    sequences: Path,
    test: EvaluationSet,
    catalogue: Catalogue,
    table: pa.Table | None,
    new_items: NewItems | None,
) -> SearchFindings | None:
    """Answer at most 2,000 test users with both searches; return `None` if the search is exact.

    Raises:
        UserError: the extra `index` is not installed.
    """
    if config.search.kind == "exact":
        return None
    recommender = _recommenders(config, model, sequences, catalogue, table, new_items)
    near, exactly = recommender(search=config.search), recommender(search=SearchConfig())
    rows = np.flatnonzero(test.histories.lengths)
    rows = rows[evenly_spread(len(rows), _MOST_USERS)]
    histories, excluded = test.histories.take(rows), test.excluded.take(rows)
    recall = recall_of(_lists(near, histories, excluded), _lists(exactly, histories, excluded))
    assert near.index is not None
    return SearchFindings(
        users=len(rows),
        recall=float(recall.mean()) if len(rows) else 1.0,
        complete=float((recall == 1).mean()) if len(rows) else 1.0,
        lists=near.index.lists,
        probes=near.index.probes,
        oversampling=config.search.oversampling,
    )


def _recommenders(
    config: EvaluateConfig,
    model: Path,
    sequences: Path,
    catalogue: Catalogue,
    table: pa.Table | None,
    new_items: NewItems | None,
) -> Callable[..., Recommender]:
    """Return a factory of recommenders, given a search: as on a server, but all items available, no exploration."""
    served = with_new_items(load_model(model), catalogue, new_items)
    split = read_json(sequences / "split.json")
    manifest = Manifest(name="evaluated", feature_service="", sequences_md5=split["md5"], split=split, files={})
    facts = None if table is None else align(table, served.catalogue.item_ids).always_available()
    return partial(
        Recommender,
        served.model,
        served.catalogue,
        manifest,
        {},
        rules=msgspec.structs.replace(config.rules, exploration=0.0),
        facts=facts,
        new_V=served.new_V,
    )


def _lists(recommender: Recommender, histories: Ragged, excluded: Ragged) -> Lists:
    k = min(TOP_K, len(recommender.catalogue))
    found = [
        np.where(np.isfinite(block.scores), block.items, 0) for block in recommender.rank(histories, k, seen=excluded)
    ]
    return np.concatenate([np.empty((0, k), np.int64), *found])
