"""All findings of the evaluation, independent of their output format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from elcrec.config import EvaluateConfig
from elcrec.data.dataset import EvaluationSet, SequenceData
from elcrec.evaluation.bootstrap import Bootstrap, bootstrap
from elcrec.evaluation.intent_profiles import profile_intents
from elcrec.evaluation.intents import (
    Truth,
    agreement,
    effective_number,
    planted_counts,
    typical_items,
)
from elcrec.evaluation.metrics import CUTOFFS, HEADLINE, mean_metrics
from elcrec.evaluation.new_items import NewItemFindings
from elcrec.evaluation.popularity import Exposure, exposure, rank_by_popularity, training_counts
from elcrec.evaluation.predictions import TOP_K, Predictions, repeat_targets
from elcrec.evaluation.rules import RuleFindings
from elcrec.evaluation.search import SearchFindings
from elcrec.evaluation.segments import by_history_length, by_target_popularity, segment_table

MANY_REPEATS = 0.1
"""Share of repeats among targets from which on it is the first thing reported."""
METRICS = tuple(f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in CUTOFFS)


@dataclass(frozen=True, kw_only=True)
class IntentFindings:
    """The intents of the evaluated users.

    Attributes:
        sizes: users of each intent, [K].
        effective: exp of the entropy of the assignment.
        largest_share: share of the assigned users in the largest intent.
        kept: share of the users, in a sample, whose last item did not change their intent; `None` if nobody has two.
        typical: characteristic items of each intent, K lists of `item`, `users`, `lift`.
        profiles: accuracy and history length of each intent's users, K rows.
        agreement: NMI with the planted truth by name, empty if there is no truth.
        planted: users by planted and by learned intent, [P, K]; `None` if there is no truth.
    """

    sizes: npt.NDArray[np.int64]
    effective: float
    largest_share: float
    kept: float | None
    typical: list[list[dict[str, Any]]]
    profiles: pd.DataFrame
    agreement: dict[str, float]
    planted: npt.NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The findings on the test split, N users.

    Attributes:
        ranks: `model`, `popularity` and, if there is one, `baseline` -> rank of each target, [N].
        resampled: means and intervals of every metric of `ranks`.
        unmasked: `model` and `baseline` -> metric -> mean, with the history left in; empty if no target is a repeat.
        repeat_share: share of targets that are already in the history.
        segments: HR@20 and NDCG@20 by group of users.
        test_users: number of users with a test target, of whom N were evaluated.
        shown: `model`, `baseline` -> their top 20; `histories` -> the users' own choices.
        intents: `None` for a model without intents.
        rules: the cost of rules and availability; `None` if there are none.
        new_items: how good the vectors of new items are; `None` if new items get none.
        search: the recall of the approximate search; `None` if servers search exactly.
    """

    ranks: dict[str, npt.NDArray[np.int32]]
    resampled: Bootstrap
    unmasked: dict[str, dict[str, float]]
    repeat_share: float
    segments: pd.DataFrame
    test_users: int
    shown: dict[str, Exposure]
    intents: IntentFindings | None
    rules: RuleFindings | None = None
    new_items: NewItemFindings | None = None
    search: SearchFindings | None = None

    @property
    def sampled(self) -> bool:
        """Whether only a sample of the users with a test target was evaluated."""
        return len(self.ranks["model"]) < self.test_users


def measure(
    config: EvaluateConfig,
    data: SequenceData,
    test: EvaluationSet,
    predictions: Mapping[str, Predictions],
    truth: Truth | None,
) -> Findings:
    """Turn predictions into findings.

    Args:
        config: the section `evaluate`.
        data: the sequences.
        test: the evaluation set of the test split, N users.
        predictions: `model` and, if there is one, `baseline`.
        truth: the planted intents of a synthetic log.
    """
    counts = training_counts(data)
    by_count = rank_by_popularity(counts, test.excluded, test.target_items, block_users=config.block_users)
    ranks = {name: given.ranking.ranks for name, given in predictions.items()} | {"popularity": by_count}
    drawing = {"samples": config.bootstrap, "seed": config.seed}
    groups = [by_history_length(test.histories.lengths), by_target_popularity(test.target_items, counts)]
    shown = {name: exposure(given.ranking.top_items, counts) for name, given in predictions.items()}
    unmasked = {name: given.unmasked_ranks for name, given in predictions.items()}
    return Findings(
        ranks=ranks,
        resampled=bootstrap(ranks, confidence=config.confidence, **drawing),
        unmasked={name: mean_metrics(rank) for name, rank in unmasked.items() if rank is not None},
        repeat_share=float(repeat_targets(test).mean()),
        segments=segment_table(groups, ranks, confidence=config.confidence, **drawing),
        test_users=len(data.asked("test")),
        shown=shown | {"histories": exposure(test.histories.values, counts)},
        intents=_intents(config, test, predictions["model"], data.num_items, truth),
    )


def _intents(
    config: EvaluateConfig, test: EvaluationSet, predictions: Predictions, num_items: int, truth: Truth | None
) -> IntentFindings | None:
    assigned = np.flatnonzero(predictions.intents >= 0)
    if not len(assigned):
        return None
    intents, histories = predictions.intents[assigned], test.histories.take(assigned)
    sizes = np.bincount(intents, minlength=predictions.num_intents)
    if truth is not None:
        truth = Truth(items=truth.items, users=truth.users[assigned])
    return IntentFindings(
        sizes=sizes,
        effective=effective_number(sizes),
        largest_share=float(sizes.max() / len(assigned)),
        kept=_kept(predictions),
        typical=typical_items(intents, histories, predictions.num_intents, num_items, config.top_items),
        profiles=profile_intents(
            intents, predictions.ranking.ranks[assigned], histories.lengths, predictions.num_intents
        ),
        agreement=agreement(intents, histories, truth, seed=config.seed) if truth else {},
        planted=planted_counts(intents, histories, truth, predictions.num_intents) if truth else None,
    )


def _kept(predictions: Predictions) -> float | None:
    known = predictions.earlier_intents >= 0
    now = predictions.intents[predictions.pictured]
    return float((predictions.earlier_intents == now)[known].mean()) if known.any() else None


def flat_metrics(findings: Findings) -> dict[str, float]:
    """Return the numbers of metrics.json: flat, with the names in docs/artifacts.md."""
    numbers: dict[str, float] = {"users": len(findings.ranks["model"])}
    if findings.sampled:
        numbers["test_users"] = findings.test_users
    numbers |= _estimates(findings)
    for name in ("popularity", "baseline"):
        means = findings.resampled.means.get(name, {})
        numbers |= {f"{name}_{metric}": means[metric] for metric in METRICS if means}
    numbers |= _differences(findings) | _unmasked(findings) | _exposures(findings)
    if findings.intents is not None:
        numbers |= _intent_numbers(findings.intents)
    if findings.rules is not None:
        numbers |= findings.rules.numbers()
    if findings.new_items is not None:
        numbers |= findings.new_items.numbers()
    if findings.search is not None:
        numbers |= findings.search.numbers()
    return numbers


def _estimates(findings: Findings) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for metric in METRICS:
        estimate = findings.resampled.estimate("model", metric)
        numbers |= {metric: estimate.mean, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
    return numbers


def _differences(findings: Findings) -> dict[str, float]:
    if "baseline" not in findings.ranks:
        return {}
    numbers: dict[str, float] = {}
    for metric in HEADLINE:
        delta = findings.resampled.difference("model", "baseline", metric)
        name = f"delta_{metric}"
        numbers |= {name: delta.mean, f"{name}_low": delta.low, f"{name}_high": delta.high}
    return numbers


def _unmasked(findings: Findings) -> dict[str, float]:
    numbers = {"repeat_target_share": findings.repeat_share}
    for name, means in findings.unmasked.items():
        prefix = "unmasked_" if name == "model" else f"{name}_unmasked_"
        numbers |= {f"{prefix}{metric}": means[metric] for metric in METRICS}
    return numbers


def _exposures(findings: Findings) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, shown in findings.shown.items():
        if name != "histories":
            prefix = "" if name == "model" else f"{name}_"
            numbers |= {
                f"{prefix}coverage@{TOP_K}": shown.coverage,
                f"{prefix}exposure_gini@{TOP_K}": shown.gini,
                f"{prefix}popularity_percentile@{TOP_K}": shown.mean_percentile,
                f"{prefix}mean_count@{TOP_K}": shown.mean_count,
            }
    chosen = findings.shown["histories"]
    return numbers | {
        "history_popularity_percentile": chosen.mean_percentile,
        "history_mean_count": chosen.mean_count,
    }


def _intent_numbers(intents: IntentFindings) -> dict[str, float]:
    return {
        "num_intents": len(intents.sizes),
        "used_intents": int(np.count_nonzero(intents.sizes)),
        "effective_intents": intents.effective,
        "largest_intent_share": intents.largest_share,
        **({} if intents.kept is None else {"kept_intent_share": intents.kept}),
        **intents.agreement,
    }
