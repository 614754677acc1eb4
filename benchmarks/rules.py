"""`python -m benchmarks.rules`: the cost of rules for a request, by kind of rule."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from benchmarks.__main__ import bare_job, describe, launch, page_option, positive
from benchmarks.jobs import Numbers
from benchmarks.measurements import Section
from benchmarks.page import record
from benchmarks.runner import say
from elcrec.config import GroupRule, RulesConfig
from elcrec.ranking.item_facts import ItemFacts
from elcrec.ranking.rules import History, Rules
from elcrec.ranking.topk import Scores, top_k

_ITEMS, _WIDTH, _CATEGORIES, _INTENTS, _LENGTH = 12_000, 64, 20, 32, 20
_ANSWERS, _REQUESTS = (10, 20), 40

_CAPS = RulesConfig(category_cap=3, intent_cap=4, categories={"1": GroupRule(boost=0.5), "2": GroupRule(cap=2)})
RULES: Mapping[str, RulesConfig] = {
    "caps, boosts": _CAPS,
    "caps, boosts, diversity": msgspec.structs.replace(_CAPS, diversity=0.3),
    "all rules": msgspec.structs.replace(_CAPS, diversity=0.3, calibration=0.2, exploration=0.05),
}
"""Rules by name: caps are by category and by intent."""

Work = Callable[[Scores, History], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Time answers with and without rules; return the exit status."""
    return launch("benchmarks.rules", _parser(), _measure, arguments)


def _measure(options: argparse.Namespace, command: Sequence[str]) -> None:
    described, _ = describe(bare_job(), command)
    runs = {}
    for name, config in RULES.items():
        for k in _ANSWERS:
            say(f"{name}, {k} items …")
            runs[f"{name}, {k}"] = [_cost(config, k, options.rounds)]
    section: Section = {"items": _ITEMS, "facts": described, "runs": runs}
    record(options.out, "rules", section)
    say(f"wrote {options.out}")


def _cost(config: RulesConfig, k: int, rounds: int) -> Numbers:
    """Return the CPU seconds of an answer from its scores, without and with rules, alternating on each request."""
    draws = np.random.default_rng(0)
    rules = _rules(config, draws)
    requests = [(_scores(draws), draws.integers(1, _ITEMS, _LENGTH)) for _ in range(_REQUESTS)]

    def plain(scores_1V: Scores, _: History) -> None:
        top_k(scores_1V, k)

    def ruled(scores_1V: Scores, history: History) -> None:
        rules.block(scores_1V)
        rules.pick(scores_1V, k, [history], draws)

    works: Mapping[str, Work] = {"plain": plain, "ruled": ruled}
    least = {name: np.full(_REQUESTS, np.inf) for name in works}
    for _ in range(rounds):
        for number, request in enumerate(requests):
            for name, work in works.items():
                least[name][number] = min(least[name][number], _seconds(work, *request))
    return {name: float(taken.mean()) for name, taken in least.items()}


def _rules(config: RulesConfig, draws: np.random.Generator) -> Rules:
    """Return rules over items with random vectors, categories and intents, of which one in twenty is unavailable."""
    vectors_VD = draws.normal(size=(_ITEMS + 1, _WIDTH)).astype(np.float32)
    facts = ItemFacts(
        categories=["", *map(str, range(1, _CATEGORIES + 1))],
        category_V=draws.integers(0, _CATEGORIES + 1, _ITEMS + 1).astype(np.int32),
        available_V=draws.random(_ITEMS + 1) > 0.05,  # noqa: PLR2004 - see above
        until_V=ItemFacts.nothing(_ITEMS).until_V,
    )
    return Rules(config, facts, vectors_VD, intent_V=draws.integers(0, _INTENTS, _ITEMS + 1))


def _scores(draws: np.random.Generator) -> Scores:
    scores_1V = draws.normal(size=(1, _ITEMS + 1)).astype(np.float32)
    scores_1V[:, 0] = -np.inf
    return scores_1V


def _seconds(work: Work, scores_1V: Scores, history: History) -> float:
    started = time.process_time()
    work(scores_1V, history)
    return time.process_time() - started


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=50, help="rounds of 40 requests each (default 50)")
    page_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
