"""`python -m benchmarks.search`: the cost of exact and approximate search per request, by number of items."""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Result
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.config import SearchConfig, TrainConfig
from elcrec.model.sequence_model import SequenceModel
from elcrec.serving.bundle import Manifest
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.recommender import Query, Recommender

_SIZES = (3_000, 12_000, 100_000, 1_000_000)
_LENGTH, _K, _BATCH, _SECONDS = 10, 10, 64, 3.0
_CENTERS, _ASKED = 256, 256
"""Number of planted groups of items, and of users over whom the recall is averaged."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Time requests on catalogues of several sizes; return the exit status."""
    return launch("benchmarks.search", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    torch.set_num_threads(1)
    runs = {}
    for size in options.sizes:
        say(f"{size} items …")
        runs[f"{size:,}"] = [_compare(size)]
    section: Section = {"facts": described, "runs": runs}
    record(options.out, "search", section)
    say(f"wrote {options.out}")


def _compare(size: int) -> Result:
    """Time both searches over one catalogue."""
    model, queries = _model(size), _queries(size)
    exactly = _recommender(model, SearchConfig())
    started = time.perf_counter()
    near = _recommender(model, SearchConfig(kind="approximate"))
    build = time.perf_counter() - started
    answers = ([answer.item_ids for answer in search.recommend(queries)] for search in (near, exactly))
    recall = float(np.mean([len(set(found) & set(whole)) / len(whole) for found, whole in zip(*answers, strict=True)]))
    return Result(
        one=_seconds(exactly, queries[:1]),
        batch=_seconds(exactly, queries[:_BATCH]),
        near_one=_seconds(near, queries[:1]),
        near_batch=_seconds(near, queries[:_BATCH]),
        recall=recall,
        build=build,
    )


def _model(size: int) -> SequenceModel:
    """Return a model with random weights whose items are clustered around centres, like those of a trained model."""
    torch.manual_seed(0)
    model = SequenceModel(TrainConfig().model, size)
    width = model.item_embeddings().shape[1]
    centers_KD = torch.randn(_CENTERS, width)
    around_VD = centers_KD[torch.randint(_CENTERS, (size + 1,))] + torch.randn(size + 1, width)
    model.item_embeddings().copy_(around_VD)
    return model


def _queries(size: int) -> list[Query]:
    drawn = np.random.default_rng(0).integers(0, size, (_ASKED, _LENGTH))
    return [Query(history=[f"item-{item}" for item in row], k=_K) for row in drawn.tolist()]


def _recommender(model: SequenceModel, search: SearchConfig) -> Recommender:
    item_ids = pa.array([f"item-{item}" for item in range(model.num_items)])
    catalogue = Catalogue(item_ids=item_ids, counts=np.ones(model.num_items, np.int64))
    manifest = Manifest(name="random", feature_service="none", sequences_md5="", split={}, files={})
    return Recommender(model, catalogue, manifest, {}, search=search)


def _seconds(recommender: Recommender, queries: Sequence[Query]) -> float:
    """Return the median seconds of ranking for these users at once, over repeated calls."""
    recommender.recommend(queries)
    taken: list[float] = []
    while sum(taken) < _SECONDS:
        started = time.perf_counter()
        recommender.recommend(queries)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--sizes", type=positive, nargs="+", default=_SIZES, metavar="ITEMS")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
