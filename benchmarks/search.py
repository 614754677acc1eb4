"""`python -m benchmarks.search`: what exact search costs a request, by the number of items."""

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
from elcrec.config import TrainConfig
from elcrec.model.sequence_model import SequenceModel
from elcrec.serving.bundle import Manifest
from elcrec.serving.catalogue import Catalogue
from elcrec.serving.recommender import Query, Recommender

_SIZES = (12_000, 100_000, 1_000_000)
_LENGTH, _BATCH, _SECONDS = 10, 64, 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Time requests on catalogues of several sizes; return the exit status."""
    return launch("benchmarks.search", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    torch.set_num_threads(1)
    runs = {}
    for size in options.sizes:
        say(f"{size} items …")
        recommender = _recommender(size)
        runs[f"{size:,}"] = [Result(one=_seconds(recommender, 1), batch=_seconds(recommender, _BATCH))]
    section: Section = {"facts": described, "runs": runs}
    record(options.out, "search", section)
    say(f"wrote {options.out}")


def _recommender(size: int) -> Recommender:
    """Return a recommender of random weights and so many items."""
    torch.manual_seed(0)
    item_ids = pa.array([f"item-{item}" for item in range(size)])
    catalogue = Catalogue(item_ids=item_ids, counts=np.ones(size, np.int64))
    manifest = Manifest(name="random", feature_service="none", sequences_md5="", split={}, files={})
    return Recommender(SequenceModel(TrainConfig().model, size), catalogue, manifest, {})


def _seconds(recommender: Recommender, number: int) -> float:
    """Return the median seconds of ranking for so many users at once, over as many calls as fit."""
    queries = [Query(history=[f"item-{item}" for item in range(_LENGTH)], k=10)] * number
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
