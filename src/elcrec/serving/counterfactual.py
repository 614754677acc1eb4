"""The counterfactual estimate of a challenger on the champion's log, as the gate uses it."""

import msgspec

from elcrec.config import CounterfactualConfig
from elcrec.evaluation.places import Estimates


class OnTheLog(msgspec.Struct, frozen=True, kw_only=True):
    """A counterfactual estimate on logged answers, or the reason why there is none."""

    champion: str
    """The version that gave the answers."""
    answers: int = 0
    users: int = 0
    shown: int = 0
    left_out: dict[str, int] = {}
    """Answers of the log that were not replayed, by reason."""
    estimates: Estimates | None = None
    problem: str | None = None
    """Why nothing can be concluded; `None` if something can."""


def verdict_of(config: CounterfactualConfig, found: OnTheLog) -> tuple[str, bool, float | None] | None:
    """Return the condition's name, whether it holds, and the bound of the difference that is compared with 0.

    Returns `None` if the configuration asks for nothing, or if the challenger need not be better and no estimate says
    that it is worse.
    """
    if config.condition == "none":
        return None
    if found.problem is not None or found.estimates is None:
        return None if config.condition == "not_worse" else (f"better on the log: {found.problem}", False, None)
    difference = found.estimates.difference
    if config.condition == "better":
        return "better on the log (lower bound of the difference)", difference.low > 0, difference.low
    return "not worse on the log (upper bound of the difference)", difference.high >= 0, difference.high


def log_markdown(found: OnTheLog | None) -> list[str]:
    """Return the estimates as lines of Markdown."""
    if found is None:
        return []
    head = ["", f"## On the log of version {found.champion}", ""]
    out = [f"- left out: {count:,} answers {reason}" for reason, count in found.left_out.items() if count]
    problem = [] if found.problem is None else [f"Nothing can be concluded: {found.problem}.", ""]
    if found.estimates is None:
        return [*head, *problem, *out]
    known = found.estimates
    rows = [
        f"| {name} | {each.mean:.4%} | {each.low:.4%} to {each.high:.4%} |"
        for name, each in (
            ("champion, as logged", known.logged),
            ("challenger, doubly robust", known.doubly_robust),
            ("challenger, SNIPS", known.snips),
            ("challenger, IPS", known.ips),
            ("challenger minus champion, doubly robust", known.difference),
        )
    ]
    size = f"{found.answers:,} answers to {found.users:,} users with {found.shown:,} shown items"
    missed = "of what the challenger shows the champion could have shown; the rest counts as never clicked"
    facts = [
        f"- {size}, which tell as much as {known.effective:,.0f} of the challenger's",
        f"- {known.reached:.1%} {missed}",
    ]
    return [
        *head,
        *problem,
        "| clicks per shown item | estimate | interval by user |",
        "|-|-|-|",
        *rows,
        "",
        *facts,
        *out,
    ]
