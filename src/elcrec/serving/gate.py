"""Whether a model may be pushed: a pure function of measurements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from elcrec.artifacts import SCHEMA_VERSION
from elcrec.config import GateConfig
from elcrec.errors import UserError
from elcrec.evaluation.metrics import gains
from elcrec.serving.counterfactual import OnTheLog, log_markdown, verdict_of


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on the challenger; `None` if there was nothing to measure."""

    name: str
    passed: bool
    observed: float | None = None
    required: float | None = None


class ChampionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The champion on the challenger's test users; numbers are `None` if it cannot be measured."""

    version: str
    metric: float | None = None
    """The gate's metric, mean over users."""
    difference: float | None = None
    """Challenger minus champion, mean of the paired differences."""
    standard_error: float | None = None
    """Standard error of `difference`."""
    better: int | None = None
    """Users for whom the challenger gains more."""
    worse: int | None = None
    """Users for whom it gains less."""


class GateDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, with everything that led to it."""

    accepted: bool
    reason: str
    metric: str
    challenger: float
    champion: ChampionResult | None
    conditions: list[Condition]
    digest: str
    """The challenger's bundle digest."""
    already_champion: bool
    """The challenger is the champion's own bundle."""
    serving: str | None
    """The champion's version, which keeps serving after a refusal; `None` if no version serves yet."""
    on_the_log: OnTheLog | None = None
    """The counterfactual estimate on the champion's log; `None` if it was not asked for."""

    def document(self) -> dict[str, Any]:
        """Return gate.json."""
        return {"schema_version": SCHEMA_VERSION, **msgspec.to_builtins(self)}


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The champion as the gate sees it.

    Attributes:
        version: its version in the registry.
        digest: its bundle's digest.
        ranks: rank of each test user's target, paired with the challenger's, [N]; `None` if not comparable.
    """

    version: str
    digest: str
    ranks: npt.NDArray[np.int32] | None


def judge(
    config: GateConfig,
    metrics: Mapping[str, Any],
    ranks: npt.NDArray[np.integer],
    champion: Champion | None,
    *,
    digest: str,
    serving: str | None,
    rejected: str | None = None,
    on_the_log: OnTheLog | None = None,
) -> GateDecision:
    """Decide on a challenger.

    Args:
        config: the conditions.
        metrics: the challenger's metrics.json.
        ranks: the challenger's rank of each test user's target, [N].
        champion: the version to compare the challenger with; `None` if there is none.
        digest: the challenger's bundle digest.
        serving: version of the registry's champion, measured or not; `None` if there is none.
        rejected: the version under which this same bundle was rejected, by a rollback or a lost test; `None` if it was
            not.
        on_the_log: the counterfactual estimate on the champion's log; `None` if it was not asked for.

    Raises:
        UserError: a metric in the configuration does not exist.
    """
    challenger = _gain(ranks, config.metric)
    already = champion is not None and champion.digest == digest
    compared, against, clause = _against_champion(config, challenger, champion, already=already)
    conditions = [*_floors(config, metrics), *against, *_of_the_log(config, on_the_log), *_not_rejected(rejected)]
    failed = [_failure(condition) for condition in conditions if not condition.passed]
    return GateDecision(
        accepted=not failed,
        reason="; ".join([*failed, _still_serving(serving)]) if failed else f"all conditions hold; {clause}",
        metric=config.metric,
        challenger=float(challenger.mean()),
        champion=compared,
        conditions=conditions,
        digest=digest,
        already_champion=already,
        serving=serving,
        on_the_log=on_the_log,
    )


def _of_the_log(config: GateConfig, found: OnTheLog | None) -> list[Condition]:
    verdict = None if found is None else verdict_of(config.counterfactual, found)
    if verdict is None:
        return []
    name, passed, bound = verdict
    return [Condition(name=name, passed=passed, observed=bound, required=None if bound is None else 0.0)]


def _still_serving(version: str | None) -> str:
    return "no version serves yet" if version is None else f"version {version} still serves"


def _not_rejected(version: str | None) -> list[Condition]:
    """Return a failed condition if the bundle was rejected; otherwise the condition is not listed."""
    return [] if version is None else [Condition(name=f"version {version} was rejected", passed=False)]


def _floors(config: GateConfig, metrics: Mapping[str, Any]) -> list[Condition]:
    return [
        Condition(name=f"floor {name}", passed=observed >= floor, observed=observed, required=floor)
        for name, floor in config.floors.items()
        for observed in [_metric(metrics, name)]
    ]


def _metric(metrics: Mapping[str, Any], name: str) -> float:
    value = metrics.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        known = ", ".join(metrics)
        raise UserError(f"push.gate.floors names {name!r}, which is not in metrics.json", fix=f"known: {known}")
    return float(value)


def _gain(ranks: npt.NDArray[np.integer], metric: str) -> npt.NDArray[np.float64]:
    table = gains(ranks)
    if metric not in table:
        raise UserError(f"push.gate.metric {metric!r} is not known", fix=f"take one of {', '.join(table)}")
    return table[metric]


def _against_champion(
    config: GateConfig, challenger: npt.NDArray[np.float64], champion: Champion | None, *, already: bool
) -> tuple[ChampionResult | None, list[Condition], str]:
    """Return the comparison, its conditions, and the reason if they hold."""
    if champion is None:
        return None, [], "there is no champion yet"
    if already:
        return _pair(challenger, challenger, champion.version), [], f"it is champion {champion.version} already"
    if champion.ranks is None:
        clause = f"champion {champion.version} knows no item of this catalogue and cannot be compared"
        return ChampionResult(version=champion.version), [], clause
    compared = _pair(challenger, _gain(champion.ranks, config.metric), champion.version)
    observed, required = float(challenger.mean()), (compared.metric or 0.0) * (1 - config.max_regression)
    condition = Condition(
        name=f"{config.metric} against champion {champion.version}",
        passed=observed >= required,
        observed=observed,
        required=required,
    )
    difference = f"{compared.difference:+.4f} (standard error {compared.standard_error:.4f})"
    clause = f"{config.metric} differs from champion {champion.version} by {difference} on the same users"
    return compared, [condition], clause


def _pair(challenger: npt.NDArray[np.float64], champion: npt.NDArray[np.float64], version: str) -> ChampionResult:
    difference = challenger - champion
    return ChampionResult(
        version=version,
        metric=float(champion.mean()),
        difference=float(difference.mean()),
        standard_error=float(difference.std() / np.sqrt(len(difference))),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
    )


def _failure(condition: Condition) -> str:
    if condition.observed is None or condition.required is None:
        return condition.name
    return f"{condition.name}: {condition.observed:.4f} is below {condition.required:.4f}"


def gate_markdown(decision: GateDecision) -> str:
    """Return the decision as a page in Markdown."""
    rows = [
        f"| {each.name} | {_number(each.observed)} | {_number(each.required)} | {'yes' if each.passed else '**no**'} |"
        for each in decision.conditions
    ]
    table = ["| condition | observed | required | holds |", "|-|-|-|-|", *rows] if rows else []
    head = [f"# Push {'accepted' if decision.accepted else 'refused'}", "", f"{decision.reason}.", ""]
    return "\n".join(
        [*head, *table, *([""] if rows else []), *_comparison(decision), *log_markdown(decision.on_the_log), ""]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _comparison(decision: GateDecision) -> list[str]:
    own = f"- challenger: {decision.metric} {decision.challenger:.4f}, bundle `{decision.digest[:12]}`"
    champion = decision.champion
    if champion is None:
        return [own, "- champion: none"]
    if champion.metric is None:
        return [own, f"- champion: version {champion.version}, not measured"]
    return [
        own,
        f"- champion: version {champion.version}, {decision.metric} {champion.metric:.4f} on the same test users",
        f"- users better / worse with the challenger: {champion.better} / {champion.worse}",
    ]
