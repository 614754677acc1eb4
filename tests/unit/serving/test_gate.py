import numpy as np
import pytest

from elcrec.config import CounterfactualConfig, GateConfig
from elcrec.errors import UserError
from elcrec.evaluation.bootstrap import Estimate
from elcrec.evaluation.places import Estimates
from elcrec.serving.counterfactual import OnTheLog
from elcrec.serving.gate import Champion, GateDecision, gate_markdown, judge

GOOD, BAD = np.array([1, 1, 2, 3], np.int32), np.array([1, 4, 9, 30], np.int32)


def decision(
    ranks: np.ndarray = GOOD, champion: Champion | None = None, digest: str = "new", **gate: object
) -> GateDecision:
    return judge(
        GateConfig(**gate),
        {"ndcg@20": 0.4},
        ranks,
        champion,
        digest=digest,
        serving=champion.version if champion else None,
    )


def champion(ranks: np.ndarray | None, digest: str = "old") -> Champion:
    return Champion(version="7", digest=digest, ranks=ranks)


@pytest.mark.parametrize(("floor", "accepted"), [(0.4, True), (0.41, False)])
def test_a_floor_is_the_least_accepted_value(floor: float, accepted: bool) -> None:
    verdict = decision(floors={"ndcg@20": floor})

    assert verdict.accepted is accepted
    assert verdict.conditions[0].observed == 0.4
    assert ("floor ndcg@20: 0.4000 is below 0.4100" in verdict.reason) is not accepted


def test_a_better_challenger_replaces_the_champion() -> None:
    verdict = decision(GOOD, champion(BAD))

    assert verdict.accepted
    assert verdict.champion is not None
    assert (verdict.champion.better, verdict.champion.worse) == (3, 0)
    assert verdict.challenger - verdict.champion.metric == pytest.approx(verdict.champion.difference)


def test_a_worse_challenger_is_refused_with_both_figures_in_the_reason() -> None:
    verdict = decision(BAD, champion(GOOD))

    assert not verdict.accepted
    assert "ndcg@20 against champion 7" in verdict.reason
    assert f"{verdict.challenger:.4f} is below" in verdict.reason


def test_a_loss_within_the_allowed_regression_is_accepted() -> None:
    worse = np.array([1, 1, 2, 4], np.int32)

    assert not decision(worse, champion(GOOD), max_regression=0.01).accepted
    assert decision(worse, champion(GOOD), max_regression=0.05).accepted


def test_the_champion_itself_is_recognised_and_still_held_to_the_floors() -> None:
    own = champion(None, digest="new")

    assert decision(champion=own).already_champion
    assert "champion 7 already" in decision(champion=own).reason
    assert decision(champion=own).champion.metric == decision().challenger
    assert not decision(champion=own, floors={"ndcg@20": 0.9}).accepted


def test_a_champion_of_another_catalogue_is_named_as_not_comparable() -> None:
    verdict = decision(champion=champion(None))

    assert verdict.accepted
    assert "cannot be compared" in verdict.reason


@pytest.mark.parametrize("gate", [{"floors": {"ndgc@20": 0.1}}, {"metric": "auc"}])
def test_an_unknown_metric_is_an_error_not_a_pass(gate: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"ndcg@20"):
        decision(**gate)


@pytest.mark.parametrize("rival", [None, champion(GOOD), champion(None)])
def test_the_page_states_verdict_and_reason(rival: Champion | None) -> None:
    verdict = decision(BAD, rival, floors={"ndcg@20": 0.1})

    page = gate_markdown(verdict)

    assert page.startswith(f"# Push {'accepted' if verdict.accepted else 'refused'}")
    assert verdict.reason in page
    assert page.count("| floor ndcg@20 |") == 1


def on_the_log(low: float, high: float, problem: str | None = None) -> OnTheLog:
    some = Estimate(mean=0.05, low=0.04, high=0.06)
    difference = Estimate(mean=(low + high) / 2, low=low, high=high)
    estimates = Estimates(
        logged=some,
        ips=some,
        snips=some,
        doubly_robust=some,
        difference=difference,
        effective=800.0,
        reached=0.9,
        attention=[1.0],
    )
    left_out = {"of another bundle": 3, "more than are replayed": 0}
    return OnTheLog(champion="7", answers=9, estimates=estimates, problem=problem, left_out=left_out)


WORSE, UNCLEAR, BETTER = on_the_log(-0.02, -0.01), on_the_log(-0.01, 0.01), on_the_log(0.01, 0.02)
SILENT = on_the_log(0.01, 0.02, problem="too little")


@pytest.mark.parametrize(
    ("condition", "accepted"),
    [
        ("none", [True, True, True, True]),
        ("not_worse", [False, True, True, True]),
        ("better", [False, False, True, False]),
    ],
)
def test_the_log_decides_as_configured(condition: str, accepted: list[bool]) -> None:
    gate = GateConfig(counterfactual=CounterfactualConfig(attributed="there", condition=condition))
    judged = [
        judge(gate, {"ndcg@20": 0.4}, GOOD, champion(BAD), digest="new", serving="7", on_the_log=each)
        for each in (WORSE, UNCLEAR, BETTER, SILENT)
    ]

    assert [one.accepted for one in judged] == accepted


def test_a_refusal_by_the_log_states_the_difference_or_the_problem() -> None:
    gate = GateConfig(counterfactual=CounterfactualConfig(attributed="there", condition="better"))
    said = [
        judge(gate, {}, GOOD, None, digest="new", serving="7", on_the_log=each).reason for each in (UNCLEAR, SILENT)
    ]

    assert "better on the log (lower bound of the difference): -0.0100 is below 0.0000" in said[0]
    assert "better on the log: too little" in said[1]


def test_the_page_and_the_document_have_the_estimates_and_what_was_left_out() -> None:
    verdict = judge(GateConfig(), {}, GOOD, None, digest="new", serving="7", on_the_log=SILENT)

    page = gate_markdown(verdict)
    assert "| challenger, doubly robust | 5.0000% | 4.0000% to 6.0000% |" in page
    assert "Nothing can be concluded: too little." in page
    assert "- left out: 3 answers of another bundle" in page
    assert "more than are replayed" not in page
    assert verdict.document()["on_the_log"]["estimates"]["difference"]["low"] == 0.01


def test_a_condition_without_a_log_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValueError, match="set attributed"):
        CounterfactualConfig(condition="better")
