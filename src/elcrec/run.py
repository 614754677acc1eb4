"""All stages one after another on one machine: the command `elcrec run`."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from elcrec.adapters.engine import open_engine
from elcrec.adapters.objects import local_copy
from elcrec.adapters.store import open_store
from elcrec.artifacts import FORGOTTEN_FILE
from elcrec.config import Config
from elcrec.locks import held
from elcrec.ranking.item_facts import read_items_file
from elcrec.stages.evaluate import evaluate
from elcrec.stages.fetch import fetch
from elcrec.stages.push import push
from elcrec.stages.recommend import recommend
from elcrec.stages.sequences import build_sequences
from elcrec.stages.train import train
from elcrec.stages.validate import validate

logger = logging.getLogger(__name__)

Metrics = dict[str, Any]
LOCK = ".run.lock"
_HEADLINE = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@20")
_CONTEXT = ("popularity_ndcg@20", "baseline_ndcg@20", "effective_intents", "largest_intent_share", "intent_nmi")


def run(
    config: Config, workdir: Path, *, mirror: Path | None = None, accept_drift: str = ""
) -> Generator[str, None, bool]:
    """Run fetch, validate, sequences, train, the baseline, evaluate and push below `workdir`.

    Yields:
        Lines of a summary: metrics, the place of the report, and ten recommendations for one user.

    Returns:
        Whether the model was pushed.

    Raises:
        UserError: a stage refused its input, or another run uses `workdir`; earlier outputs stay.
    """
    with held(workdir.absolute() / LOCK, subject=workdir):
        return (yield from _run(config, workdir, mirror, accept_drift))


def _run(config: Config, workdir: Path, mirror: Path | None, accept_drift: str) -> Generator[str, None, bool]:
    raw, validated, sequences = workdir / "raw", workdir / "validated", workdir / "sequences"
    model, baseline, evaluation = workdir / "model", workdir / "baseline", workdir / "evaluation"
    checkpoints, store = workdir / "checkpoints", open_store(workdir / "store")
    plain, engine = config.train.as_baseline(), open_engine(config.engine)

    store.require_history(config.sequences.history)
    if config.evaluate.items_file is not None:
        read_items_file(Path(config.evaluate.items_file))  # check it before a model is trained, not after
    with local_copy(config.fetch) as (section, provenance):
        _stage("fetch", lambda: fetch(section, raw, mirror=mirror, provenance=provenance))
    gone = store.folder / FORGOTTEN_FILE
    judge = partial(validate, engine=engine, accepted=workdir / "accepted", forgotten=gone, accept_drift=accept_drift)
    _stage("validate", lambda: judge(config.validate, raw, validated))
    _stage("sequences", lambda: build_sequences(config.sequences, validated, sequences, engine=engine))
    _stage("train", lambda: train(config.train, sequences, model, checkpoint=checkpoints / "model"))
    _stage("train the baseline", lambda: train(plain, sequences, baseline, checkpoint=checkpoints / "baseline"))
    metrics = _stage(
        "evaluate", lambda: evaluate(config.evaluate, model, sequences, evaluation, baseline=baseline, truth=raw)
    )
    inputs = (model, sequences, evaluation, workdir / "push")
    with store.pushing():
        stores = partial(push, registry=store.registry, features=store.features)
        release = partial(stores, sign=store.signer, salt=lambda: store.user_salt)
        pushed = _stage("push", lambda: release(config.push, *inputs))

    yield from _summary(metrics, workdir)
    if not pushed["accepted"]:
        yield f"not pushed, so nothing is recommended: {pushed['reason']}"
    else:
        user = pq.read_table(sequences / "histories.parquet", columns=["user_id"])["user_id"][0].as_py()
        name = config.push.model_name
        yield from ["", *recommend(name, user, 10, registry=store.registry, features=store.features)]
    return bool(pushed["accepted"])


def _stage(name: str, work: Callable[[], Metrics]) -> Metrics:
    logger.info("== %s", name)
    started = time.perf_counter()
    metrics = work()
    logger.info("== %s: done in %.1f s", name, time.perf_counter() - started)
    return metrics


def _summary(metrics: Metrics, workdir: Path) -> Iterator[str]:
    yield from ("", "test metrics")
    for name in (*_HEADLINE, *_CONTEXT):
        if name in metrics:
            yield f"  {name:<22} {metrics[name]:.4f}"
    yield ""
    yield f"report      {workdir / 'evaluation' / 'report.html'}"
    yield f"validation  {workdir / 'validated' / 'validation.html'}"
    yield f"gate        {workdir / 'push' / 'gate.md'}"
